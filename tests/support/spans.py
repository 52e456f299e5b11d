"""Spans for tests."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import orjson

from headrace.api.tracking.v1.resources_pb2 import SPAN_STATUS_ERROR, Span

SECOND = 1_000_000_000


def trace_id() -> str:
    """An id that no other trace has."""
    return uuid4().hex


def now_ns() -> int:
    """Now, to the second: of any database the same."""
    return int(datetime.now(UTC).timestamp()) * SECOND


def span(
    trace: str, number: int, *, parent: int = 0, name: str = "", start_s: float = 0, took_s: float = 1, **more: object
) -> Span:
    """The span of a number, which begins so many seconds after an hour ago; without ``took_s`` it goes on."""
    begun = now_ns() // (3600 * SECOND) * 3600 * SECOND - 3600 * SECOND + int(start_s * SECOND)
    failed = more.pop("failed", False)
    found = Span(
        trace_id=trace,
        span_id=f"{number:016x}",
        parent_span_id=f"{parent:016x}" if parent else "",
        name=name or f"span {number}",
        start_time_ns=begun,
        end_time_ns=begun + int(took_s * SECOND) if took_s else 0,
        attributes={key.replace("__", "."): orjson.dumps(value).decode() for key, value in more.items()},
    )
    if failed:
        found.status = SPAN_STATUS_ERROR
    return found
