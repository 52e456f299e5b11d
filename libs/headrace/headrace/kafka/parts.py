"""Parts of batches: grouped by shard, merged, emptied, weighed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from headrace.kafka.batches import MAX_BATCH_ROWS, Labels, Predictions
from headrace.kafka.columns import ColumnData, concatenate
from headrace.kafka.errors import InvalidBatch
from headrace.kafka.shards import shard_of


def group_labels(
    project: str,
    endpoint: str,
    *,
    ids: Sequence[str],
    values: ColumnData,
    times_us: Sequence[int],
    rows: Sequence[int] | None = None,
) -> list[Labels]:
    """Labels by the shard of the predictions they name.

    Args:
        project: Project id.
        endpoint: Endpoint id.
        ids: ``(n,)`` prediction ids.
        values: ``(n,)`` true values.
        times_us: ``(n,)`` when each became known, microseconds since 1970 UTC.
        rows: ``(n,)`` row within its prediction; all 0 when absent.

    Raises:
        InvalidBatch: lengths differ.
    """
    known = np.asarray(times_us, dtype="<i8")
    within = np.zeros(len(ids), dtype="<u4") if rows is None else np.asarray(rows, dtype="<u4")
    if not len(ids) == len(values.values) == len(known) == len(within):
        raise InvalidBatch("ids, values, times and rows differ in length", field="ids")
    shards = np.fromiter((shard_of(each) for each in ids), dtype=np.int64, count=len(ids))
    grouped: list[Labels] = []
    for shard in np.unique(shards).tolist():
        chosen = np.flatnonzero(shards == shard)
        for start in range(0, len(chosen), MAX_BATCH_ROWS):
            some = chosen[start : start + MAX_BATCH_ROWS]
            grouped.append(
                Labels(
                    project=project,
                    endpoint=endpoint,
                    shard=shard,
                    ids=[str(ids[index]) for index in some.tolist()],
                    row_counts=np.ones(len(some), dtype="<u4"),
                    rows=within[some],
                    times_us=known[some],
                    values=values.take(some),
                )
            )
    return grouped


def merge_predictions(parts: Sequence[Predictions]) -> Predictions:
    """The requests of the parts in order; project, endpoint, version, shard and schema are those of the first."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Predictions(
        project=first.project,
        endpoint=first.endpoint,
        model_version=first.model_version,
        shard=first.shard,
        ids=[each for part in parts for each in part.ids],
        row_counts=np.concatenate([part.row_counts for part in parts]),
        times_us=np.concatenate([part.times_us for part in parts]),
        columns=[concatenate([part.columns[index] for part in parts]) for index in range(len(first.columns))],
    )


def merge_labels(parts: Sequence[Labels]) -> Labels:
    """The labels of the parts in order; project, endpoint, shard and type are those of the first."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Labels(
        project=first.project,
        endpoint=first.endpoint,
        shard=first.shard,
        ids=[each for part in parts for each in part.ids],
        row_counts=np.concatenate([part.row_counts for part in parts]),
        rows=np.concatenate([part.rows for part in parts]),
        times_us=np.concatenate([part.times_us for part in parts]),
        values=concatenate([part.values for part in parts]),
    )


def empty_predictions(part: Predictions) -> Predictions:
    """A batch of nothing for the same endpoint and version."""
    return replace(part, ids=[], row_counts=part.row_counts[:0], times_us=part.times_us[:0], columns=[])


def empty_labels(part: Labels) -> Labels:
    """A batch of nothing for the same endpoint."""
    none = np.empty(0, dtype=np.intp)
    return replace(
        part,
        ids=[],
        row_counts=part.row_counts[:0],
        rows=part.rows[:0],
        times_us=part.times_us[:0],
        values=part.values.take(none),
    )


def size_of(part: Predictions | Labels) -> int:
    """About the bytes it takes in memory and on the wire."""
    if isinstance(part, Labels):
        return 64 * len(part.ids) + part.values.values.nbytes
    return 64 * len(part.ids) + sum(column.values.nbytes for column in part.columns)
