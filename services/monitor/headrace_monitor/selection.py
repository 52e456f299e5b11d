"""Pure: which predictions an erasure means, and records without them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.api.common.v1.telemetry_pb2 import Column, LabelBatch, PredictionBatch
from headrace.archive.decoding import Batch, decoded
from headrace.archive.record import Record
from headrace.kafka.batches import Labels, Predictions
from headrace.kafka.columns import MISSING_CODE, ColumnData, decode_column

Mask: TypeAlias = NDArray[np.bool_]
PredictionKey: TypeAlias = tuple[str, str, str]
"""Project, endpoint, prediction id."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What an erasure means. A request is meant when any of it holds.

    Attributes:
        person: A text column of any of its rows is this; empty for nobody.
        project: Only of this project; empty for all.
        endpoint: Only of this endpoint; empty for all.
        where: A column of any of its rows has this value: names with values as text.
        ids: Its prediction id is among these.
    """

    person: str
    project: str
    endpoint: str
    where: tuple[tuple[str, str], ...]
    ids: frozenset[str]

    def requests_of(self, body: Predictions) -> Mask:
        """``(k,)``: which of the batch's requests are meant."""
        requests = len(body.ids)
        if (self.project or body.project) != body.project or (self.endpoint or body.endpoint) != body.endpoint:
            return np.zeros(requests, dtype=np.bool_)
        rows = np.zeros(body.rows, dtype=np.bool_)
        for column in body.columns:
            if self.person and column.dictionary is not None:
                rows |= _equal(column, self.person)
            for name, value in self.where:
                if name == column.name:
                    rows |= _equal(column, value)
        owners = np.repeat(np.arange(requests), body.row_counts.astype(np.int64))
        by_rows = np.bincount(owners[rows], minlength=requests) > 0
        by_id = np.fromiter((each in self.ids for each in body.ids), dtype=np.bool_, count=requests)
        return by_rows | by_id


@dataclass(frozen=True, slots=True)
class Cut:
    """Records without what an erasure means.

    Attributes:
        records: As many as before, at the same offsets.
        changed: How many of them hold other bytes.
        rows: Predicted rows, or labels, that are gone.
        predictions: Whose rows they were.
    """

    records: tuple[Record, ...]
    changed: int
    rows: int
    predictions: frozenset[PredictionKey]


def cut_predictions(records: Sequence[Record], selection: Selection) -> Cut:
    """Prediction records without the requests that are meant. What can not be read stays as it is."""
    found: list[Record] = []
    changed, rows, keys = 0, 0, set[PredictionKey]()
    for record in records:
        batch = decoded(record)
        gone = None if batch is None or isinstance(batch.body, Labels) else selection.requests_of(batch.body)
        if batch is None or gone is None or not gone.any():
            found.append(record)
            continue
        body = batch.body
        keys |= {(body.project, body.endpoint, body.ids[index]) for index in np.flatnonzero(gone).tolist()}
        rows += int(body.row_counts[gone].sum())
        changed += 1
        found.append(record._replace(value=_without(batch, gone)))
    return Cut(tuple(found), changed, rows, frozenset(keys))


def cut_labels(records: Sequence[Record], keys: Collection[PredictionKey]) -> Cut:
    """Label records without the labels of predictions."""
    found: list[Record] = []
    changed, rows = 0, 0
    for record in records:
        batch = decoded(record)
        if batch is None:
            found.append(record)
            continue
        body = batch.body
        gone = np.array([(body.project, body.endpoint, each) in keys for each in body.ids], dtype=np.bool_)
        if not gone.any():
            found.append(record)
            continue
        rows += int(body.row_counts[gone].sum())
        changed += 1
        found.append(record._replace(value=_without(batch, gone)))
    return Cut(tuple(found), changed, rows, frozenset())


def _equal(column: ColumnData, value: str) -> Mask:
    """``(n,)``: where a column has a value, given as text."""
    if column.dictionary is not None:
        codes = [code for code, word in enumerate(column.dictionary) if word == value]
        return np.isin(column.values, codes)
    if column.values.dtype.kind == "b":
        wanted: Any = {"true": True, "1": True, "false": False, "0": False}.get(value.lower())
        return np.zeros(len(column.values), dtype=np.bool_) if wanted is None else column.values == wanted
    try:
        number: Any = float(value) if column.values.dtype.kind == "f" else int(value)
        equal: Mask = column.values == (column.values.dtype.type(number) if column.values.dtype.kind == "f" else number)
    except (ValueError, OverflowError):
        return np.zeros(len(column.values), dtype=np.bool_)
    return equal


def _without(batch: Batch, gone: Mask) -> bytes:
    """The batch's bytes without some ids; fields that are not known here stay, and so do its numbers."""
    kept = ~gone
    head, body = batch.head, batch.body  # the batch is this call's own: nobody else sees it changed
    rows = np.repeat(kept, body.row_counts.astype(np.int64))
    if isinstance(head, LabelBatch) and isinstance(body, Labels):
        head.rows = body.rows[rows].astype("<u4").tobytes()
        head.times_us = body.times_us[rows].astype("<i8").tobytes()
        _keep_rows(head.values, rows)
    elif isinstance(head, PredictionBatch):
        head.times_us = body.times_us[kept].astype("<i8").tobytes()
        for column in head.columns:
            _keep_rows(column, rows)
    ids = [each for each, keep in zip(body.ids, kept.tolist(), strict=True) if keep]
    head.row_counts = body.row_counts[kept].astype("<u4").tobytes()
    head.ids[:] = ids
    return head.SerializeToString(deterministic=True)


def _keep_rows(column: Column, rows: Mask) -> None:
    """Keeps some rows of a column, and of its dictionary the words they use: the others may be what is erased."""
    data = decode_column(column, rows=len(rows), field="column")
    values = data.values[rows]
    if data.dictionary is not None:
        used = sorted({int(each) for each in values.tolist()} - {MISSING_CODE})
        codes = {old: new for new, old in enumerate(used)}
        values = np.array([codes.get(int(each), MISSING_CODE) for each in values.tolist()], dtype="<u4")
        column.dictionary[:] = [data.dictionary[each] for each in used]
    column.values = np.ascontiguousarray(values).tobytes()
