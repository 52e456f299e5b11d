"""Erasing takes what is meant out of a record, and nothing else; archived files say what the records say."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.common.v1 import telemetry_pb2
from headrace.api.common.v1.telemetry_pb2 import PredictionBatch
from headrace.archive.decoding import decoded
from headrace.archive.parquet import encode, read_records, rows_of
from headrace.archive.record import Record, leaf_of
from headrace.kafka import ColumnData, Labels, Predictions, encode_labels, encode_predictions, new_id
from headrace_monitor.selection import Selection, cut_labels, cut_predictions

NAMES = ("zoe", "bob", "persons/1", None)
"""None that prediction ids, which are hexadecimal, could hold by chance."""
TOPIC = "t.predictions.v1"
NOBODY = Selection(person="", project="", endpoint="", where=(), ids=frozenset())


@st.composite
def predictions(draw: st.DrawFn) -> Predictions:
    counts = draw(st.lists(st.integers(0, 3), min_size=1, max_size=5))
    rows = sum(counts)
    names = draw(st.lists(st.sampled_from(NAMES), min_size=rows, max_size=rows))
    numbers = draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
    return Predictions(
        project="p",
        endpoint="e",
        model_version="v",
        shard=0,
        ids=[new_id(0) for _ in counts],
        row_counts=np.array(counts, dtype="<u4"),
        times_us=np.arange(len(counts), dtype="<i8"),
        columns=[
            ColumnData.of("who", np.array(names, dtype=object), telemetry_pb2.COLUMN_ROLE_SEGMENT),
            ColumnData.of("n", np.array(numbers, dtype="<i4")),
            ColumnData.of("x", np.array(numbers, dtype="<f4") / 10, telemetry_pb2.COLUMN_ROLE_OUTPUT),
        ],
    )


def record(body: Predictions, offset: int = 0) -> Record:
    value = encode_predictions(body, producer_id="q", epoch=1, seq=offset + 1).SerializeToString()
    return Record(TOPIC, 0, offset, 1000 + offset, b"0", value, (("h", b"v"),))


def rows(records: list[Record] | tuple[Record, ...]) -> list[dict[str, object]]:
    batches = [decoded(each) for each in records]
    assert all(batch is not None for batch in batches)
    return [row for batch in batches if batch is not None for row in rows_of(batch)]


@given(st.lists(predictions(), min_size=1, max_size=4), st.sampled_from(["zoe", "persons/1"]), st.integers(0, 3))
def test_exactly_the_requests_that_are_meant_are_gone(bodies: list[Predictions], name: str, number: int) -> None:
    records = [record(body, offset) for offset, body in enumerate(bodies)]
    selection = Selection(
        person="persons/1", project="p", endpoint="", where=(("who", name), ("n", str(number))), ids=frozenset()
    )
    before = rows(records)
    meant = {
        row["prediction_id"] for row in before if row["segment_who"] in {name, "persons/1"} or row["input_n"] == number
    }

    cut = cut_predictions(records, selection)

    assert rows(cut.records) == [row for row in before if row["prediction_id"] not in meant]
    assert {key[2] for key in cut.predictions} == meant
    assert cut.rows == len(before) - len(rows(cut.records))
    assert [(each.offset, each.timestamp_ms, each.key, each.headers) for each in cut.records] == [
        (each.offset, each.timestamp_ms, each.key, each.headers) for each in records
    ]
    assert cut_predictions(cut.records, selection).changed == 0
    if name not in {row["segment_who"] for row in rows(cut.records)}:
        assert not any(name.encode() in (each.value or b"") for each in cut.records)


@given(predictions())
def test_what_is_of_another_project_or_endpoint_stays(body: Predictions) -> None:
    records = [record(body)]
    for project, endpoint in (("other", ""), ("", "other")):
        other = Selection(
            person="persons/1", project=project, endpoint=endpoint, where=(("who", "zoe"),), ids=frozenset()
        )
        assert cut_predictions(records, other).records == tuple(records)


def test_a_value_is_met_in_every_type_and_by_id() -> None:
    columns = [
        ColumnData.of("f4", np.array([0.1, 2.0], dtype="<f4")),
        ColumnData.of("b", np.array([True, False])),
        ColumnData.of("u1", np.array([7, 255], dtype="u1")),
    ]
    ids = [new_id(0), new_id(0)]
    body = Predictions("p", "e", "v", 0, ids, np.ones(2, dtype="<u4"), np.zeros(2, dtype="<i8"), columns)
    for where, gone in (
        (("f4", "0.1"), ids[:1]),
        (("b", "false"), ids[1:]),
        (("u1", "255"), ids[1:]),
        (("u1", "256"), []),
        (("u1", "x"), []),
        (("b", "x"), []),
        (("none", "1"), []),
    ):
        cut = cut_predictions([record(body)], Selection("", "", "", (where,), frozenset()))
        assert [key[2] for key in cut.predictions] == gone, where
    by_id = cut_predictions([record(body)], Selection("", "", "", (), frozenset(ids[:1])))
    assert [row["prediction_id"] for row in rows(by_id.records)] == ids[1:]


def test_fields_of_newer_writers_survive_a_cut() -> None:
    ids = [new_id(0), new_id(0)]
    body = Predictions("p", "e", "v", 0, ids, np.ones(2, dtype="<u4"), np.zeros(2, dtype="<i8"), [])
    newer = record(body)
    unknown = b"\xfa\x3e\x03new"
    newer = newer._replace(value=(newer.value or b"") + unknown)

    cut = cut_predictions([newer], Selection("", "", "", (), frozenset(ids[:1])))

    assert unknown in (cut.records[0].value or b"")
    assert list(PredictionBatch.FromString(cut.records[0].value or b"").ids) == ids[1:]


def test_labels_of_erased_predictions_go_with_them() -> None:
    ids = [new_id(0), new_id(0)]
    labels = Labels(
        "p",
        "e",
        0,
        ids,
        np.array([2, 1], dtype="<u4"),
        np.array([0, 1, 0], dtype="<u4"),
        np.arange(3, dtype="<i8"),
        ColumnData.of("label", np.array(["a", "secret", "b"], dtype=object)),
    )
    value = encode_labels(labels, producer_id="q", epoch=1, seq=1).SerializeToString()
    cut = cut_labels([Record("t.labels.v1", 0, 0, 0, None, value)], {("p", "e", ids[0])})

    [row] = rows(cut.records)
    assert (cut.rows, row["prediction_id"], row["label"], row["time"].microsecond) == (2, ids[1], "b", 2)  # type: ignore[attr-defined]
    assert b"secret" not in (cut.records[0].value or b"")
    assert cut_labels([Record("t.labels.v1", 0, 0, 0, None, value)], {("other", "e", ids[0])}).changed == 0


def test_what_can_not_be_read_stays() -> None:
    poison = Record(TOPIC, 0, 0, 0, None, b"\xff")
    tombstone = Record(TOPIC, 0, 1, 0, None, None)
    assert cut_predictions([poison, tombstone], NOBODY).records == (poison, tombstone)


@given(st.lists(predictions(), max_size=4))
def test_files_give_the_records_back_and_are_the_same_each_time(bodies: list[Predictions]) -> None:
    records = [record(body, offset) for offset, body in enumerate(bodies)]
    records.append(Record(TOPIC, 0, 9, 9, None, None, (("", None), ("é", b""))))

    encoded = encode(records)

    assert read_records(encoded.records, topic=TOPIC, partition=0) == records
    assert encode(records) == encoded
    frames = [pl.read_parquet(io.BytesIO(file.content)) for file in encoded.rows]
    assert [row for frame in frames for row in frame.to_dicts()] == rows(records[:-1])


def test_files_of_two_partitions_differ_whatever_is_in_them() -> None:
    one = Record(TOPIC, 0, 0, 0, None, b"")
    assert encode([one]).records != encode([one._replace(partition=1)]).records


def test_every_part_of_a_record_is_in_its_leaf() -> None:
    one = Record(TOPIC, 0, 0, 0, b"k", b"v", (("h", b"v"),))
    others = [
        one._replace(topic="u"),
        one._replace(partition=1),
        one._replace(offset=1),
        one._replace(timestamp_ms=1),
        one._replace(key=None),
        one._replace(key=b""),
        one._replace(value=None),
        one._replace(headers=()),
        one._replace(headers=(("h", None),)),
        one._replace(headers=(("hv", b""),)),
    ]
    assert len({leaf_of(each) for each in [one, *others]}) == len(others) + 1
