"""What is encoded is decoded, for every type and any values; what is not a batch is refused by its field."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.common.v1 import telemetry_pb2
from headrace.kafka import (
    SHARDS,
    ColumnData,
    InvalidBatch,
    Predictions,
    decode_labels,
    decode_predictions,
    encode_labels,
    encode_predictions,
    group_labels,
    new_id,
    shard_of,
)
from headrace.kafka.batches import EARLIEST_US, LATEST_US

WORDS = st.text(alphabet="aé漢🙂 ", max_size=3)
DTYPES = ("?", "i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8")


@st.composite
def predictions(draw: st.DrawFn) -> Predictions:
    shard = draw(st.integers(0, SHARDS - 1))
    row_counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    rows = sum(row_counts)
    columns: list[ColumnData] = []
    for index, dtype in enumerate(draw(st.lists(st.sampled_from((*DTYPES, "text")), min_size=1, max_size=4))):
        if dtype == "text":
            words = draw(st.lists(st.none() | WORDS, min_size=rows, max_size=rows))
            columns.append(ColumnData.of(f"c{index}", words))
        else:
            raw = draw(st.binary(min_size=8 * rows, max_size=8 * rows))
            values = np.frombuffer(raw, dtype="u1") % 2 if dtype == "?" else np.frombuffer(raw, dtype=dtype)
            columns.append(ColumnData.of(f"c{index}", values[:rows].astype(dtype)))
    return Predictions(
        project="default",
        endpoint="e",
        model_version="projects/default/models/m/versions/1",
        shard=shard,
        ids=[new_id(shard) for _ in row_counts],
        row_counts=np.array(row_counts, dtype="<u4"),
        times_us=np.array(
            draw(st.lists(st.integers(EARLIEST_US, LATEST_US), min_size=len(row_counts), max_size=len(row_counts))),
            dtype="<i8",
        ),
        columns=columns,
    )


@given(predictions())
def test_predictions_come_back_as_they_were_sent(sent: Predictions) -> None:
    data = encode_predictions(sent, producer_id="p", epoch=1, seq=1).SerializeToString()

    got = decode_predictions(telemetry_pb2.PredictionBatch.FromString(data))

    assert list(got.ids) == list(sent.ids)
    assert got.row_counts.tolist() == sent.row_counts.tolist()
    assert got.times_us.tolist() == sent.times_us.tolist()
    for one, other in zip(sent.columns, got.columns, strict=True):
        assert (one.name, one.role, one.datatype) == (other.name, other.role, other.datatype)
        if one.dictionary is None:
            assert one.values.tobytes() == other.values.tobytes()
        else:
            assert one.strings() == other.strings()


@given(st.integers(0, SHARDS - 1))
def test_an_id_made_for_a_shard_is_on_it(shard: int) -> None:
    assert shard_of(new_id(shard)) == shard


@given(st.text())
def test_every_string_has_a_shard(text: str) -> None:
    assert 0 <= shard_of(text) < SHARDS


def test_the_shard_of_an_id_never_changes() -> None:
    assert shard_of("0190a6f2-7c1e-7abc-8def-0123456789ff") == 255 % 24
    assert shard_of("order-17") == 20


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=30))
def test_labels_are_grouped_by_shard_and_none_is_lost(ids: list[str]) -> None:
    values = ColumnData.of("y", np.arange(len(ids), dtype="<f8"))

    groups = group_labels("default", "e", ids=ids, values=values, times_us=[5] * len(ids))

    found: list[tuple[str, float]] = []
    for seq, group in enumerate(groups, start=1):
        got = decode_labels(encode_labels(group, producer_id="p", epoch=1, seq=seq))
        assert {shard_of(each) for each in got.ids} == {group.shard}
        found += zip(got.ids, got.values.values.tolist(), strict=True)
    assert sorted(found) == sorted(zip(ids, range(len(ids)), strict=True))


@given(predictions(), st.data())
def test_a_damaged_batch_is_refused_and_names_its_field(sent: Predictions, data: st.DataObject) -> None:
    batch = encode_predictions(sent, producer_id="p", epoch=1, seq=1)
    field = data.draw(st.sampled_from(("row_counts", "times_us", "columns[0].values", "shard", "seq", "project")))
    if field == "columns[0].values":
        batch.columns[0].values += b"\x00"
    elif field == "shard":
        batch.shard = (batch.shard + 1) % SHARDS
    elif field == "seq":
        batch.seq = 0
    elif field == "project":
        batch.project = ""
    else:
        setattr(batch, field, getattr(batch, field) + b"\x00")

    with pytest.raises(InvalidBatch) as caught:
        decode_predictions(batch, field="batches[2]")

    assert caught.value.field == ("batches[2].ids[0]" if field == "shard" else f"batches[2].{field}")


@given(predictions(), st.sampled_from((EARLIEST_US, LATEST_US)), st.integers(1, 2**60), st.data())
def test_a_time_beyond_the_calendar_is_refused(sent: Predictions, bound: int, beyond: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(sent.ids) - 1))
    sent.times_us[at] = bound
    decode_predictions(encode_predictions(sent, producer_id="p", epoch=1, seq=1))
    sent.times_us[at] = bound + (beyond if bound == LATEST_US else -beyond)
    labels = group_labels(
        "default",
        "e",
        ids=[sent.ids[at]],
        values=ColumnData.of("y", np.zeros(1, dtype="<f8")),
        times_us=[int(sent.times_us[at])],
    )

    with pytest.raises(InvalidBatch) as predicted:
        decode_predictions(encode_predictions(sent, producer_id="p", epoch=1, seq=1))
    with pytest.raises(InvalidBatch) as known:
        decode_labels(encode_labels(labels[0], producer_id="p", epoch=1, seq=1))

    assert (predicted.value.field, known.value.field) == ("times_us", "times_us")


def test_the_calendar_is_that_of_every_other_time() -> None:
    first, last = (datetime(year, 1, 1, tzinfo=UTC) for year in (1900, 2200))

    assert [int(each.timestamp()) * 1_000_000 for each in (first, last)] == [EARLIEST_US, LATEST_US]
