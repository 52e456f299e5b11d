"""What many runs come to together: how many there are, which keys they have, groups of them, points of all of them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headrace.api.tracking.v1.resources_pb2 import VIEW_ALL, View
from headrace_kit.postgres import Database
from headrace_tracking.filters import Condition, Subject, type_of
from headrace_tracking.history import read_series
from headrace_tracking.searching import SqlBuilder
from headrace_tracking.store import matching
from headrace_tracking.thinning import Series, thin

MAX_KEYS: Final = 2000
"""Keys of a kind that are told."""
NEWEST: Final = 10_000
"""Runs whose keys are looked at, however many match."""
MAX_GROUPS: Final = 1000
BATCH_POINTS: Final = 200_000
"""Points that are read at once; a run that has more is read alone."""
MOST_POINTS: Final = 500_000
"""Points of one answer."""
_KEYS: Final = {
    "params": "jsonb_object_keys(f.params) AS k(key)",
    "tags": "jsonb_object_keys(f.tags) AS k(key)",
    "metrics": "run_metrics k WHERE k.run = f.name",
}
"""Where the keys of each kind are, beside ``found f``."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which runs: the conditions of a search."""

    project: str
    experiments: Sequence[str]
    condition: Condition | None
    view: View.ValueType = VIEW_ALL

    def sql(self) -> SqlBuilder:
        """Where SQL on these runs begins."""
        return SqlBuilder(self.project, condition=self.condition)

    def where(self, sql: SqlBuilder) -> str:
        """An SQL condition on ``sql.source``."""
        return matching(sql, experiments=self.experiments, condition=self.condition, view=self.view)


@dataclass(frozen=True, slots=True)
class Keys:
    """Number of runs, and of each kind of key the most frequent, with the number of the newest runs that have them."""

    runs: int
    params: Mapping[str, int]
    metrics: Mapping[str, int]
    tags: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one value (None for those without): for each number asked for, how many have it, mean and deviation."""

    value: str | None
    runs: int
    stats: Sequence[tuple[int, float, float]]


class Census:
    """Queries over many runs.

    Args:
        database: Tracking's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keys(self, asked: Asked) -> Keys:
        """How many runs match, and the keys of the newest of them."""
        sql = asked.sql()
        where = asked.where(sql)
        # Only text of this module and of SqlBuilder is SQL here; every value is a parameter.
        parts = [
            f"(SELECT '{kind}' AS kind, k.key, count(*) AS n FROM found f, {keys}"  # noqa: S608 - see above
            f" GROUP BY k.key ORDER BY 3 DESC, 2 LIMIT {MAX_KEYS})"
            for kind, keys in _KEYS.items()
        ]
        head = (
            "WITH found AS MATERIALIZED ("  # noqa: S608 - see above
            f"SELECT r.name, r.params, r.tags FROM {sql.source} WHERE {where}"
            f" ORDER BY r.start_time DESC, r.name LIMIT {NEWEST})"
        )
        parts.append(f"SELECT 'runs', '', count(*) FROM {sql.source} WHERE {where}")  # noqa: S608 - see above
        rows = await self._database.fetch(f"{head} {' UNION ALL '.join(parts)}", *sql.parameters)
        found: dict[str, dict[str, int]] = {kind: {} for kind in (*_KEYS, "runs")}
        for row in rows:
            found[row["kind"]][row["key"]] = row["n"]
        return Keys(found["runs"][""], found["params"], found["metrics"], found["tags"])

    async def groups(self, asked: Asked, by: Subject, numbers: Sequence[Subject]) -> list[Group]:
        """The groups by size, at most one more than ``MAX_GROUPS``."""
        sql = asked.sql()
        columns = [f", {_number(sql, each)} AS v{place}" for place, each in enumerate(numbers)]
        value, where = sql.value_of(by), asked.where(sql)
        told = [
            f", count(v{place}), coalesce(avg(v{place}), 0), coalesce(stddev_samp(v{place}), 0)"
            for place in range(len(numbers))
        ]
        # Only text of this module and of SqlBuilder is SQL here; every value is a parameter.
        rows = await self._database.fetch(
            f"SELECT value, count(*) AS n{''.join(told)}"  # noqa: S608 - see above
            f" FROM (SELECT ({value})::text AS value{''.join(columns)} FROM {sql.source} WHERE {where}) g"
            f" GROUP BY value ORDER BY 2 DESC, value NULLS LAST LIMIT {MAX_GROUPS + 1}",
            *sql.parameters,
        )
        return [
            Group(row[0], row[1], [(row[at], row[at + 1], row[at + 2]) for at in range(2, 2 + 3 * len(numbers), 3)])
            for row in rows
        ]

    async def histories(
        self, runs: Sequence[str], key: str, *, max_points: int, x_key: str = "", thinning: int = 0
    ) -> AsyncIterator[tuple[str, Series, list[float]]]:
        """Points of a metric of each run that has it, thinned, and the values of another at the same steps.

        A run's points are read whole and thinned one batch of runs after the other, so that memory holds one batch.
        """
        names = list(dict.fromkeys(runs))
        counted = await self._database.fetch(
            "SELECT run, count FROM run_metrics WHERE run = ANY($1::text[]) AND key = $2", names, key
        )
        counts: dict[str, int] = {row["run"]: row["count"] for row in counted}
        most = min(max_points, max(MOST_POINTS // max(len(counts), 1), 2))
        for batch in _batches([name for name in names if name in counts], counts):
            whole = await read_series(self._database, batch, key)
            beside = await read_series(self._database, batch, x_key) if x_key else {}
            for name in batch:
                if name not in whole:
                    continue
                series = thin(whole[name], most, thinning)
                yield name, series, _aligned(series, beside.get(name)) if x_key else []


def _number(sql: SqlBuilder, subject: Subject) -> str:
    """A subject as a number; a time as seconds since 1970 UTC."""
    value = sql.value_of(subject)
    return f"extract(epoch FROM {value})::float8" if type_of(subject) == "time" else f"({value})::float8"


def _batches(runs: Sequence[str], counts: Mapping[str, int]) -> list[list[str]]:
    batches: list[list[str]] = []
    room = 0
    for run in runs:
        if not batches or counts[run] > room:
            batches.append([])
            room = BATCH_POINTS
        batches[-1].append(run)
        room -= counts[run]
    return batches


def _aligned(series: Series, other: Series | None) -> list[float]:
    """The last value of ``other`` at each step of ``series``; NaN where it has none."""
    known = {} if other is None else dict(zip(other.steps, other.values, strict=True))
    return [known.get(step, math.nan) for step in series.steps]
