"""Counts commute: however predictions and labels are cut and ordered, the bytes are the same."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.monitor.v1.resources_pb2 import (
    TASK_KIND_BINARY_CLASSIFICATION,
    TASK_KIND_REGRESSION,
    ColumnProfile,
    ReferenceProfile,
    TaskKind,
)
from headrace.kafka import ColumnData
from headrace_monitor.layout import layout_of
from headrace_monitor.slots import (
    SlotCounts,
    count_errors,
    count_predictions,
    decode_cells,
    encode_cells,
    merged,
    predicted_values,
)
from tests.support.telemetry import HOUR_US, World, profile_of

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(0, 3 * HOUR_US)), min_size=1, max_size=40)
LAYOUT = layout_of(profile_of())


def counted(rows: list[tuple[float, float, int]]) -> dict[int, SlotCounts]:
    x = np.array([row[0] for row in rows])
    y = np.array([row[1] for row in rows])
    batch = World("e").predictions(["i"] * len(rows), x, y, times_us=[row[2] for row in rows], shard=0)
    return count_predictions(batch, predicted_values(batch, "y"), LAYOUT, slot_us=HOUR_US)


def as_bytes(slots: dict[int, SlotCounts]) -> dict[int, tuple[int, bytes]]:
    return {start: (counts.rows, encode_cells(counts.cells)) for start, counts in slots.items()}


@given(ROWS, st.data())
def test_cut_and_ordered_anyhow_slots_have_the_same_bytes(
    rows: list[tuple[float, float, int]], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(rows))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    parts = [order[low:high] for low, high in zip([0, *cuts], [*cuts, len(rows)], strict=True) if low < high]

    together: dict[int, SlotCounts] = {}
    for part in parts:
        for start, counts in counted(part).items():
            together[start] = merged([counts, together.get(start, SlotCounts.empty(LAYOUT.size))], LAYOUT.size)

    assert as_bytes(together) == as_bytes(counted(rows))
    assert sum(counts.rows for counts in together.values()) == len(rows)


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=40),
    st.integers(0, 40),
    st.sampled_from([TASK_KIND_REGRESSION, TASK_KIND_BINARY_CLASSIFICATION]),
)
def test_errors_add_up_exactly_wherever_they_are_cut(
    pairs: list[tuple[float, float]], cut: int, task: TaskKind.ValueType
) -> None:
    predicted, labels = (np.array(side) for side in zip(*pairs, strict=True))
    with np.errstate(invalid="ignore"):
        whole = count_errors(predicted, labels, LAYOUT, task=task)
        parts = merged(
            [
                count_errors(predicted[cut:], labels[cut:], LAYOUT, task=task),
                count_errors(predicted[:cut], labels[:cut], LAYOUT, task=task),
            ],
            LAYOUT.size,
        )

    assert (parts.labels, parts.correct, parts.error_sum, parts.error_square) == (
        whole.labels,
        whole.correct,
        whole.error_sum,
        whole.error_square,
    )
    assert parts.cells.tolist() == whole.cells.tolist()


@given(st.lists(st.integers(0, 2**62), max_size=20))
def test_cells_come_back_from_their_bytes(cells: list[int]) -> None:
    assert decode_cells(encode_cells(np.array(cells, dtype=np.int64))).tolist() == cells


def test_log_loss_is_that_of_the_probability() -> None:
    counts = count_errors(
        np.array([0.9, 0.2, 0.6]), np.array([1.0, 0.0, 0.0]), LAYOUT, task=TASK_KIND_BINARY_CLASSIFICATION
    )

    assert abs(counts.mean_error - float(-np.log([0.9, 0.8, 0.4]).mean())) < 1e-6
    assert (counts.labels, counts.correct) == (3, 2)


def test_known_other_and_missing_categories_have_cells_of_their_own() -> None:

    layout = layout_of(ReferenceProfile(inputs=[ColumnProfile(name="c", categories=["a", "b"], counts=[1, 1, 0, 0])]))

    codes = layout.inputs[0].codes(ColumnData.of("c", ["b", "new", None, "a"]))

    assert codes.tolist() == [1, 2, 3, 0]
