"""Gates in the words of people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from headrace.api.registry.v1 import resources_pb2 as resources

COMPARISONS: Final = {
    "<=": resources.COMPARISON_AT_MOST,
    ">=": resources.COMPARISON_AT_LEAST,
    "<": resources.COMPARISON_LESS,
    ">": resources.COMPARISON_GREATER,
}
"""Comparisons by how people write them."""
MEASURES: Final[dict[resources.ReplayMeasure.ValueType, str]] = {
    number: name.removeprefix("REPLAY_MEASURE_").lower() for name, number in resources.ReplayMeasure.items() if number
}
"""What gates look at in a replay, as people write it."""
_SIGNS: Final[dict[int, str]] = {number: sign for sign, number in COMPARISONS.items()}
_UNITS: Final = (("days", 86400), ("hours", 3600), ("minutes", 60))


def sentences(gates: resources.Gates) -> Iterator[str]:
    """What gates need, a phrase each."""
    yield from (f"check {each} passed" for each in gates.required_checks)
    for each in gates.metrics:
        yield f"{_where(each.check)}{each.metric} {_SIGNS.get(each.comparison, '?')} {each.threshold:g}"
    for one in gates.champion:
        side, by = "more" if one.higher_is_better else "less", f" by {one.margin:g}" if one.margin else ""
        yield f"{side} {_where(one.check)}{one.metric} than the champion{by}, on the same data"
    if gates.HasField("replay"):
        bound = MEASURES.get(gates.replay.measure)
        what = f"the last {gates.replay.requests} requests answered again without errors"
        near = f", {bound} <= {gates.replay.most:g}" if bound else ""
        yield what + near + (f", at most {_span(gates.replay.max_age_s)} ago" if gates.replay.max_age_s else "")
    yield from [f"a version of at most {_span(gates.max_age_s)}"] * bool(gates.max_age_s)
    yield from [f"a run of at most {_span(gates.max_run_age_s)}"] * bool(gates.max_run_age_s)
    yield from ["a safe format, or consent to it"] * gates.safe_format_required
    yield from ["a package signed by a trusted key"] * gates.signed_package_required
    yield from ["a compatible signature"] * gates.compatible_signature_required
    for some in gates.approvals:
        of_role = f" with the role {some.role}" if some.role else ""
        yield f"approved by {some.count} {'person' if some.count == 1 else 'persons'}{of_role}"
    yield "approval" if gates.approval_required else "no approval"


def _where(check: str) -> str:
    return f"{check}/" if check else ""


def _span(seconds: int) -> str:
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds} seconds"
