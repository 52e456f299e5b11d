"""Spans of a trace as the tree they are, and lengths of time for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from headrace.api.tracking.v1.resources_pb2 import Span

_UNITS: Final = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"))


class Place(NamedTuple):
    """A span, and how many are above it."""

    depth: int
    span: Span


def in_order(spans: Iterable[Span]) -> list[Place]:
    """Each span before those below it, beside others by start; one whose parent is not there stands at the top.

    Whatever parents spans name, each comes once.
    """
    ordered = sorted(spans, key=lambda each: (each.start_time_ns, each.span_id))
    known = {each.span_id for each in ordered}
    below: dict[str, list[Span]] = defaultdict(list)
    for each in ordered:
        below[each.parent_span_id if each.parent_span_id in known else ""].append(each)
    found: list[Place] = []
    seen: set[str] = set()
    # Spans that are each other's parents are below nothing: the first of them opens their circle.
    for top in [*below[""], *ordered]:
        if top.span_id not in seen:
            found.extend(_from(top, below, seen))
    return found


def took(nanoseconds: int) -> str:
    """A length of time: three significant digits and a unit."""
    for size, unit in _UNITS:
        if nanoseconds >= size:
            value = nanoseconds / size
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{nanoseconds} ns"


def _from(top: Span, below: dict[str, list[Span]], seen: set[str]) -> Iterator[Place]:
    waiting = [Place(0, top)]
    while waiting:
        place = waiting.pop()
        if place.span.span_id in seen:
            continue
        seen.add(place.span.span_id)
        yield place
        waiting.extend(Place(place.depth + 1, each) for each in reversed(below.get(place.span.span_id, [])))
