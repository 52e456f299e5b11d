"""Columns of the table of runs: what an address names, what a run has there, and how the search language calls it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headrace.api.tracking.v1.resources_pb2 import Run, RunStatus
from headrace_gateway.pages import duration, label, number, words
from headrace_kit.errors import InvalidArgument

ATTRIBUTES: Final = ("status", "experiment", "group", "start_time", "end_time", "duration_s", "run", "by", "commit")
"""Attributes that may be columns; the last two are no part of the search language."""
UNSORTED: Final = ("by", "commit")
PARTS: Final = ("last", "min", "max")
MAX_COLUMNS: Final = 100
_PLAIN: Final = re.compile(r"[\w\-./:@]+", re.ASCII)

Cell = str | float | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        kind: ``metric``, ``param``, ``tag`` or ``attribute``.
        key: What it shows.
        part: ``last``, ``min`` or ``max`` of a metric; empty for others.
    """

    kind: str
    key: str
    part: str = ""

    @staticmethod
    def parse(text: str) -> Column:
        """Of an address: ``metric.KEY.min``, ``param.KEY``, ``tag.KEY`` or an attribute. Raises InvalidArgument."""
        kind, dot, key = text.partition(".")
        if not dot and text in ATTRIBUTES:
            return Column("attribute", text)
        if kind == "metric" and key:
            stem, _, part = key.rpartition(".")
            return Column("metric", stem, part) if stem and part in PARTS else Column("metric", key, "last")
        if kind in ("param", "tag") and key:
            return Column(kind, key)
        raise InvalidArgument(f"there is no column {text[:100]!r}", field="column")

    @property
    def name(self) -> str:
        """As an address has it; ``parse`` reads it."""
        if self.kind == "attribute":
            return self.key
        return f"{self.kind}.{self.key}" + (f".{self.part}" if self.kind == "metric" else "")

    @property
    def subject(self) -> str:
        """As the search language has it; empty for what it does not know."""
        if self.kind == "attribute":
            return "" if self.key in UNSORTED else self.key
        key = self.key if _PLAIN.fullmatch(self.key) else f"`{self.key}`"
        return f"{self.kind}.{key}" + (f".{self.part}" if self.kind == "metric" else "")

    @property
    def is_number(self) -> bool:
        """Whether it shows numbers."""
        return self.kind == "metric" or self.key == "duration_s"

    def cell(self, run: Run) -> Cell:
        """What a run has there, for JSON: numbers that are none as text, None for nothing."""
        match self.kind:
            case "metric":
                summary = run.metrics.get(self.key)
                return None if summary is None else finite(float(getattr(summary, self.part)))
            case "param":
                return run.params.get(self.key)
            case "tag":
                return run.tags.get(self.key)
            case _:
                return _attribute(run, self.key)


def parse_columns(texts: Sequence[str]) -> list[Column]:
    """Columns of an address, each once. Raises InvalidArgument."""
    found = list(dict.fromkeys(Column.parse(each) for each in texts if each))
    if len(found) > MAX_COLUMNS:
        raise InvalidArgument(f"at most {MAX_COLUMNS} columns", field="column")
    return found


def finite(value: float) -> Cell:
    """A number as JSON can have it: NaN and infinities become text."""
    return value if math.isfinite(value) else number(value) if math.isnan(value) else str(value)


def _attribute(run: Run, key: str) -> Cell:
    match key:
        case "status":
            return words(RunStatus.Name(run.status), "RUN_STATUS_")
        case "experiment":
            return label(run.experiment)
        case "start_time":
            return run.start_time.ToMilliseconds() if run.HasField("start_time") else None
        case "end_time":
            return run.end_time.ToMilliseconds() if run.HasField("end_time") else None
        case "duration_s":
            return duration(run.start_time, run.end_time)
        case "run":
            return run.name.rpartition("/")[2]
        case "commit" | "group":
            return (run.code.commit[:12] if key == "commit" else run.group) or None
        case _:
            return run.actor
