"""Labels meet predictions: who waits, who met, who came again. Plain values, no I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headrace.kafka import Labels, Predictions
from headrace_monitor.slots import SlotShard

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Key = tuple[int, bytes]
"""Endpoint id, and the key of a prediction id."""


def key_of(prediction_id: str) -> bytes:
    """16 bytes: those of a UUID in lower case, or the first of the SHA-256 of any other id."""
    if _UUID.fullmatch(prediction_id):
        return bytes.fromhex(prediction_id.replace("-", ""))
    return hashlib.sha256(prediction_id.encode()).digest()[:16]


@dataclass(slots=True, eq=False)
class Waiting:
    """A prediction that was counted, and which of its rows got a label."""

    version_id: int
    start_us: int
    predicted: NDArray[np.float64]
    labelled: NDArray[np.bool_]

    @classmethod
    def stored(cls, *, version_id: int, start_us: int, predicted: bytes, labelled: bytes | None) -> Waiting:
        """As it lies in the database."""
        values = np.frombuffer(predicted, dtype="<f8")
        if labelled is None:
            met = np.zeros(len(values), dtype=np.bool_)
        else:
            met = np.unpackbits(np.frombuffer(labelled, dtype=np.uint8), count=len(values)).astype(np.bool_)
        return cls(version_id, start_us, values, met)

    @property
    def predicted_bytes(self) -> bytes:
        """For the database."""
        return self.predicted.astype("<f8", copy=False).tobytes()

    @property
    def labelled_bytes(self) -> bytes | None:
        """For the database."""
        return np.packbits(self.labelled).tobytes() if self.labelled.any() else None


@dataclass(slots=True)
class Met:
    """Labels that met their prediction, by (endpoint, version, start of slot)."""

    predicted: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(slots=True)
class JoinCounts:
    """What became of labels."""

    joined: int = 0
    waiting: int = 0
    repeated: int = 0
    refused: int = 0
    """No number, or for a row that the prediction does not have."""


class Join:
    """The join of one chunk of telemetry; knows what is waiting for the keys of the chunk, and what changed.

    Args:
        predictions: Counted predictions that labels of the chunk may name.
        labels: Labels that came before their predictions, by key and row, for predictions of the chunk.
    """

    def __init__(self, predictions: dict[Key, Waiting], labels: dict[Key, dict[int, float]]) -> None:
        self._predictions = predictions
        self._labels = labels
        self.met: dict[SlotShard, Met] = {}
        self.created: dict[Key, Waiting] = {}
        self.updated: dict[Key, Waiting] = {}
        self.labels_added: dict[tuple[Key, int], tuple[int, float]] = {}
        """Shard and value of labels that wait since, by key and row."""
        self.labels_met: set[Key] = set()

    def add_predictions(
        self,
        batch: Predictions,
        predicted: NDArray[np.float64],
        *,
        endpoint_id: int,
        version_id: int,
        starts: NDArray[np.int64],
        counts: JoinCounts,
    ) -> None:
        """Remembers predictions, and lets labels that came before meet them; an id that came before is passed over."""
        at = 0
        for prediction_id, rows, start in zip(batch.ids, batch.row_counts.tolist(), starts.tolist(), strict=True):
            key = (endpoint_id, key_of(prediction_id))
            values = predicted[at : at + rows]
            at += rows
            if key in self._predictions:
                continue
            waiting = Waiting(version_id, start, values, np.zeros(rows, dtype=np.bool_))
            self._predictions[key] = self.created[key] = waiting
            early = self._labels.pop(key, None)
            if early:
                self._meet_early(key, waiting, early, shard=batch.shard, counts=counts)

    def add_labels(self, batch: Labels, values: NDArray[np.float64], *, endpoint_id: int, counts: JoinCounts) -> None:
        """Lets labels meet their predictions, or wait."""
        rows, numbers = batch.rows.tolist(), values.tolist()
        at = 0
        for prediction_id, count in zip(batch.ids, batch.row_counts.tolist(), strict=True):
            key = (endpoint_id, key_of(prediction_id))
            waiting = self._predictions.get(key)
            for row, value in zip(rows[at : at + count], numbers[at : at + count], strict=True):
                if value != value or value in {float("inf"), float("-inf")}:  # noqa: PLR0124 - NaN
                    counts.refused += 1
                elif waiting is not None:
                    self._meet(key, waiting, row, value, shard=batch.shard, counts=counts)
                elif row in self._labels.setdefault(key, {}):
                    counts.repeated += 1
                else:
                    self._labels[key][row] = value
                    self.labels_added[key, row] = (batch.shard, value)
                    counts.waiting += 1
            at += count

    def _meet(self, key: Key, waiting: Waiting, row: int, value: float, *, shard: int, counts: JoinCounts) -> None:
        if row >= len(waiting.predicted):
            counts.refused += 1
            return
        if waiting.labelled[row]:
            counts.repeated += 1
            return
        waiting.labelled[row] = True
        counts.joined += 1
        if key not in self.created:
            self.updated[key] = waiting
        met = self.met.setdefault(SlotShard(key[0], waiting.start_us, waiting.version_id, shard), Met())
        met.predicted.append(float(waiting.predicted[row]))
        met.values.append(value)

    def _meet_early(
        self, key: Key, waiting: Waiting, early: dict[int, float], *, shard: int, counts: JoinCounts
    ) -> None:
        self.labels_met.add(key)
        counts.waiting -= len(early)
        for row, value in early.items():
            self.labels_added.pop((key, row), None)
            self._meet(key, waiting, row, value, shard=shard, counts=counts)


def keys_of(ids: Sequence[str], endpoint_id: int) -> list[Key]:
    """The keys of prediction ids on an endpoint."""
    return [(endpoint_id, key_of(each)) for each in ids]
