"""Logged requests answered again by another version, and how far its answers are from those that were given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.api.common.v1.telemetry_pb2 import COLUMN_ROLE_INPUT, COLUMN_ROLE_OUTPUT
from headrace.kafka.columns import ColumnData
from headrace_kit.errors import InvalidArgument
from headrace_serving.batch import compute
from headrace_serving.contract import Contract, Spec
from headrace_serving.logged import LoggedBatch
from headrace_serving.runtime import ModelFailed
from headrace_serving.tensors import BYTES, DTYPES, Array, Tensor
from headrace_serving.versions import LoadedVersion

_DIMENSIONS = 2


@dataclass(slots=True)
class Differences:
    """What was seen so far.

    Attributes:
        requests: Answered again, or failed on.
        rows: In those that were answered.
        errors: Requests that the version failed on, or where one of the two answers is no finite number alone.
        numbers: Floats that were compared.
        total: Sum of their absolute differences.
        greatest: The greatest.
        changed: Rows in which a text, a boolean or an integer differs.
    """

    requests: int = 0
    rows: int = 0
    errors: int = 0
    numbers: int = 0
    total: float = 0.0
    greatest: float = 0.0
    changed: int = 0

    @property
    def mean(self) -> float:
        """Mean absolute difference of the floats; 0 where there are none."""
        return self.total / self.numbers if self.numbers else 0.0

    @property
    def changed_share(self) -> float:
        """Share of the rows in which a label differs; 0 where there are none."""
        return self.changed / self.rows if self.rows else 0.0


async def answer_again(version: LoadedVersion, batch: LoggedBatch, seen: Differences) -> None:
    """Answers the requests of a record again and adds what came of it to ``seen``.

    They are answered at once, as in batch scoring; where that fails, one by one, so that one failure is one error.

    Raises:
        InvalidArgument: The log has not what the version takes, or the version not what was answered.
    """
    try:
        await _answer(version, batch, batch.places, seen)
    except ModelFailed:
        for each in batch.places:
            try:
                await _answer(version, batch, [each], seen)
            except ModelFailed:
                seen.requests, seen.errors = seen.requests + 1, seen.errors + 1


async def _answer(version: LoadedVersion, batch: LoggedBatch, places: Sequence[int], seen: Differences) -> None:
    logged, rows = batch.columns(places)
    inputs = inputs_of(version.contract, logged)
    outputs = await compute(version, inputs, rows=rows)
    answered = version.contract.columns(inputs, (), outputs, rows=rows)
    counts = [int(batch.predictions.row_counts[each]) for each in places]
    compare(_outputs(logged), _outputs(answered), counts, seen)


def inputs_of(contract: Contract, columns: Sequence[ColumnData]) -> list[Tensor]:
    """The inputs of requests whose columns were logged. Raises InvalidArgument where one is missing."""
    given = {each.name: each for each in columns if each.role == COLUMN_ROLE_INPUT}
    return [Tensor(spec.name, spec.datatype, _array(spec, given)) for spec in contract.inputs]


def compare(
    logged: Mapping[str, ColumnData], answered: Mapping[str, ColumnData], counts: Sequence[int], seen: Differences
) -> None:
    """Adds how far the columns of two answers are apart; ``counts`` has the rows of each request.

    Raises:
        InvalidArgument: There was an output that is not there any more, or nothing was logged.
    """
    if not logged:
        raise InvalidArgument("no outputs were logged with the requests: there is nothing to compare with")
    rows = sum(counts)
    changed, broken = np.zeros(rows, bool), np.zeros(rows, bool)
    for name, before in logged.items():
        after = answered.get(name)
        if after is None:
            raise InvalidArgument(f"the version has no output {name!r}, which was answered")
        if before.dictionary is not None or after.dictionary is not None:
            changed |= np.array([one != other for one, other in zip(_labels(before), _labels(after), strict=True)])
        elif before.values.dtype.kind == "f" or after.values.dtype.kind == "f":
            one, other = before.values.astype(np.float64), after.values.astype(np.float64)
            finite = np.isfinite(one) & np.isfinite(other)
            with np.errstate(invalid="ignore"):
                broken |= ~finite & ~((one == other) | (np.isnan(one) & np.isnan(other)))
            apart = np.abs(one[finite] - other[finite])
            seen.numbers, seen.total = seen.numbers + len(apart), seen.total + float(apart.sum())
            seen.greatest = max(seen.greatest, float(apart.max(initial=0.0)))
        else:
            changed |= before.values != after.values
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    seen.errors += int(np.count_nonzero(np.add.reduceat(broken.astype(np.int64), starts))) if rows else 0
    seen.requests, seen.rows = seen.requests + len(counts), seen.rows + rows
    seen.changed += int(np.count_nonzero(changed))


def _outputs(columns: Sequence[ColumnData]) -> dict[str, ColumnData]:
    return {each.name: each for each in columns if each.role == COLUMN_ROLE_OUTPUT}


def _labels(column: ColumnData) -> list[str | None]:
    return column.strings() if column.dictionary is not None else [str(each) for each in column.values.tolist()]


def _array(spec: Spec, given: Mapping[str, ColumnData]) -> Array:
    if not spec.batched or len(spec.shape) > _DIMENSIONS:
        raise InvalidArgument(f"input {spec.name} is not logged by rows and columns, and can not be answered again")
    parts = [_values(spec, given, name) for name in _names(spec, given)]
    return parts[0] if len(spec.shape) == 1 else np.column_stack(parts)


def _names(spec: Spec, given: Mapping[str, ColumnData]) -> Sequence[str]:
    """The columns of an input, as telemetry names them."""
    if spec.columns:
        return spec.columns
    if len(spec.shape) == 1 or spec.shape[1] == 1 or spec.name in given:
        return (spec.name,)
    width = spec.shape[1] if spec.shape[1] > 0 else sum(each.startswith(f"{spec.name[:240]}[") for each in given)
    return [f"{spec.name[:240]}[{index}]" for index in range(width)] or (spec.name,)


def _values(spec: Spec, given: Mapping[str, ColumnData], name: str) -> Array:
    column = given.get(name)
    if column is None:
        raise InvalidArgument(f"the requests were logged without {name!r}, which input {spec.name} takes")
    if spec.datatype == BYTES:
        words = np.empty(len(column.values), dtype=object)
        words[:] = [(each or "").encode() for each in _labels(column)]
        return words
    if column.dictionary is not None:
        raise InvalidArgument(f"{name!r} was logged as text, and input {spec.name} takes {spec.datatype}")
    return column.values.astype(DTYPES[spec.datatype])
