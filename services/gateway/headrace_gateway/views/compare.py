"""Runs side by side."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headrace.api.tracking.v1.resources_pb2 import Run, RunStatus
from headrace_gateway.columns import PARTS, finite
from headrace_gateway.pages import Pages, label, number, short
from headrace_gateway.platform import Platform
from headrace_gateway.selecting import Selection
from headrace_kit.errors import InvalidArgument

COMPARED: Final = 50
"""Most runs that stand side by side in the table."""
DRAWN: Final = 2000
"""Most runs in the pictures."""
_LESS: Final = re.compile(
    r"loss|err|mae|mse|rms|mape|perplexity|brier|nll|latency|duration|time|_ms|_s$|wer|fid|fpr|fnr|drift|regret",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a comparison.

    Attributes:
        kind: ``param``, ``metric``, ``tag``, ``dataset`` or ``code``.
        name: What is compared.
        values: One a run; empty where a run has none.
        differs: Whether the runs differ in it.
        best: Places of the best values; empty where nothing is better than the rest.
        less: Whether less is taken for better.
    """

    kind: str
    name: str
    values: tuple[str, ...]
    differs: bool
    best: tuple[int, ...] = ()
    less: bool = False


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """The comparison."""

    async def compare(request: Request) -> Response:
        query, selection = request.query_params, Selection.of(request.query_params)
        part = query.get("of", "last")
        if part not in PARTS:
            raise InvalidArgument(f"metrics have last, min and max, not {part[:100]!r}", field="of")
        runs = await selection.runs(platform, most=DRAWN)
        if len(runs) < 2:
            raise InvalidArgument("Choose at least two runs in the table of runs to compare them.", field="run")
        return pages.render(
            request,
            "compare.html",
            runs=runs[:COMPARED],
            count=len(runs),
            selection=selection,
            part=part,
            parts=PARTS,
            rows=comparison(runs[:COMPARED], part),
            keys=sorted({key for run in runs for key, summary in run.metrics.items() if summary.count > 1}),
            drawn=drawn(runs, part),
            RunStatus=RunStatus,
        )

    return [Route("/runs/compare", compare)]


def drawn(runs: Sequence[Run], part: str) -> dict[str, object]:
    """Runs as parallel coordinates and scatters need them: dimensions, and of each run its values there."""
    params = sorted({key for run in runs for key in run.params})
    metrics = sorted({key for run in runs for key in run.metrics})

    def of(run: Run) -> list[object]:
        told: list[object] = [run.params.get(key) for key in params]
        return [*told, *(finite(getattr(run.metrics[key], part)) if key in run.metrics else None for key in metrics)]

    return {
        "dimensions": [*(["param", key] for key in params), *(["metric", key] for key in metrics)],
        "runs": [[short(run.name), run.display_name or label(run.name), of(run)] for run in runs],
    }


def comparison(runs: Sequence[Run], part: str = "last") -> list[Row]:
    """Parameters, metrics, tags, datasets and code of the runs, side by side."""
    rows: list[Row] = []

    def add(kind: str, name: str, values: Sequence[str]) -> None:
        rows.append(Row(kind, name, tuple(values), len(set(values)) > 1))

    for key in sorted({key for run in runs for key in run.params}):
        add("param", key, [run.params.get(key, "") for run in runs])
    rows.extend(
        _metric(key, [getattr(run.metrics[key], part) if key in run.metrics else None for run in runs])
        for key in sorted({key for run in runs for key in run.metrics})
    )
    for key in sorted({key for run in runs for key in run.tags}):
        add("tag", key, [run.tags.get(key, "") for run in runs])
    for name in sorted({each.name for run in runs for each in run.datasets}):
        digests = [next((each.digest[:19] for each in run.datasets if each.name == name), "") for run in runs]
        add("dataset", name, digests)
    add("code", "commit", [run.code.commit[:12] + (" + changes" if run.code.dirty else "") for run in runs])
    add("code", "packages", [run.environment.packages_digest[:12] for run in runs])
    return rows


def less_is_better(key: str) -> bool:
    """Whether a metric's name sounds like one that should be small."""
    return _LESS.search(key) is not None


def _metric(key: str, values: Sequence[float | None]) -> Row:
    shown = tuple("" if each is None else number(each) for each in values)
    known = [each for each in values if each is not None and math.isfinite(each)]
    less = less_is_better(key)
    best = (min if less else max)(known) if len(set(known)) > 1 else None
    places = tuple(place for place, each in enumerate(values) if best is not None and each == best)
    return Row("metric", key, shown, len(set(shown)) > 1, places, less)
