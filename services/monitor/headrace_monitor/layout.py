"""Which cell of a slot's counts a value falls into: the bins of a version's reference profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.api.monitor.v1.resources_pb2 import ColumnProfile, ReferenceProfile
from headrace.kafka import ColumnData

Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Cells of one column: its bins, then one for missing values."""

    name: str
    edges: NDArray[np.float64]
    """Upper edges; a value on an edge lies below it."""
    categories: dict[str, int] | None
    """Of a column of strings: bin by category; the bin after the last is for others."""
    offset: int
    """First cell."""

    @property
    def size(self) -> int:
        """Cells."""
        return (len(self.edges) if self.categories is None else len(self.categories)) + 2

    def codes(self, column: ColumnData) -> Codes:
        """``(n,)`` cell of each value."""
        missing = self.offset + self.size - 1
        if self.categories is not None:
            if column.dictionary is None:
                return np.full(len(column.values), missing - 1, dtype=np.int64)
            others = len(self.categories)
            known = [self.categories.get(word, others) for word in column.dictionary]
            cells = np.array([*(self.offset + each for each in known), missing], dtype=np.int64)
            return cells[np.minimum(column.values, len(known))]
        if column.dictionary is not None:
            return np.full(len(column.values), missing, dtype=np.int64)
        return self.codes_of(column.values.astype(np.float64, copy=False))

    def codes_of(self, values: NDArray[np.float64]) -> Codes:
        """``(n,)`` cell of each number."""
        codes = self.offset + np.searchsorted(self.edges, values, side="left").astype(np.int64)
        codes[np.isnan(values)] = self.offset + self.size - 1
        return codes


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Cells of a slot: inputs in the order of the profile, the prediction, the error."""

    profile: ReferenceProfile
    inputs: tuple[Bins, ...]
    prediction: Bins
    error: Bins

    @property
    def size(self) -> int:
        """Cells in all."""
        return self.error.offset + self.error.size


def layout_of(profile: ReferenceProfile) -> Layout:
    """The cells of slots that are compared with ``profile``; an empty profile counts rows and errors alone."""
    offset = 0
    inputs: list[Bins] = []
    for column in profile.inputs:
        inputs.append(_bins(column, offset))
        offset += inputs[-1].size
    prediction = _bins(profile.prediction, offset)
    error = Bins("error", np.array(profile.error_edges, dtype=np.float64), None, offset + prediction.size)
    return Layout(profile, tuple(inputs), prediction, error)


def fault_of(profile: ReferenceProfile) -> str:
    """Why a profile cannot be counted by, or nothing."""
    for column in (*profile.inputs, profile.prediction):
        if column.edges and column.categories:
            return f"column {column.name} has both edges and categories"
        if not _ascending(column.edges):
            return f"edges of column {column.name} do not ascend"
        if len(column.counts) not in {0, len(column.edges or column.categories) + 2}:
            return f"column {column.name} has {len(column.counts)} counts for {len(column.edges)} edges"
    return "" if _ascending(profile.error_edges) else "edges of the error do not ascend"


def _ascending(edges: Sequence[float]) -> bool:
    values = np.array(edges, dtype=np.float64)
    return not bool(np.isnan(values).any()) and bool(np.all(np.diff(values) > 0))


def _bins(column: ColumnProfile, offset: int) -> Bins:
    categories = {word: index for index, word in enumerate(column.categories)} if column.categories else None
    return Bins(column.name, np.array(column.edges, dtype=np.float64), categories, offset)
