"""Names and times of the past, as they are given."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import pytest
from google.protobuf.message import Message

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.audit.v1.service_pb2 import (
    ConsumerStatus,
    GetLogStatusRequest,
    GetLogStatusResponse,
    PartitionStatus,
    ReadLogRequest,
    ReadLogResponse,
    StateAtResponse,
)
from headrace.api.registry.v1.events_pb2 import ModelCreated, RollbackRefused, VersionPromoted
from headrace.api.registry.v1.resources_pb2 import Alias, Model, Promotion, Version
from headrace.cli.past import consumer_rows, moment, records_behind, trace_id
from headrace.client import Client
from headrace.errors import InvalidArgument, NotFound
from headrace.past import flat, holes, names_alias, of_alias, owner_of, reason_of


def test_a_name_tells_its_service() -> None:
    assert owner_of("projects/default/models/m") == "registry"
    assert owner_of("projects/default/pipelineRuns/r") == "orchestrator"


@pytest.mark.parametrize("name", ["", "m", "projects/default/models", "projects/default/cats/m", "models/m/a/b"])
def test_a_name_of_no_entity_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="ENTITY"):
        owner_of(name)


def test_a_time_without_an_offset_is_utc() -> None:
    assert moment("2026-05-03T14:03:00", "T1") == datetime(2026, 5, 3, 14, 3, tzinfo=UTC)
    assert moment("2026-05-03T16:03:00+02:00", "T1") == datetime(2026, 5, 3, 14, 3, tzinfo=UTC)
    with pytest.raises(InvalidArgument, match="T1"):
        moment("yesterday", "T1")


def test_nested_fields_have_paths() -> None:
    assert dict(flat({"a": {"b": [1, {"c": 2}]}, "d": "e"})) == {"a.b[0]": 1, "a.b[1].c": 2, "d": "e"}


def test_an_alias_gives_the_version_it_stood_for() -> None:
    name = "projects/default/models/m"
    versions = [Version(name=f"{name}/versions/{number}") for number in (1, 2, 12)]
    found = StateAtResponse(position=7)
    found.state.Pack(Model(name=name, versions=versions, aliases=[Alias(alias="production", version=2)]))
    version = Version()
    assert of_alias(found, "production").state.Unpack(version)
    assert version == versions[1]
    with pytest.raises(NotFound, match="staging"):
        of_alias(found, "staging")


def test_a_reason_is_found_wherever_an_event_has_it() -> None:
    promotion = Promotion(alias="production", reason="better by 3 %")
    assert reason_of(entry_of(VersionPromoted(promotion=promotion))) == "better by 3 %"
    assert reason_of(entry_of(RollbackRefused(alias="production", reason="moved on"))) == "moved on"
    assert reason_of(entry_of(ModelCreated())) == ""
    assert reason_of(LogEntry(type="headrace.somewhere.v1.Unknown")) == ""


def test_events_of_an_alias_are_those_that_name_it() -> None:
    promoted = entry_of(VersionPromoted(promotion=Promotion(alias="production")))

    assert names_alias(promoted, "production")
    assert not names_alias(promoted, "staging")
    assert not names_alias(entry_of(ModelCreated()), "production")


@pytest.mark.parametrize(
    ("positions", "published", "expected"),
    [
        ([1, 2, 3, 4, 5], 5, []),
        ([], 0, []),
        ([2, 3, 6], 6, [(1, 1), (4, 5)]),
        ([1, 2], 4, [(3, 4)]),
        ([], 2, [(1, 2)]),
    ],
)
def test_holes_are_positions_that_are_missing_within_and_at_the_end(
    positions: list[int], published: int, expected: list[tuple[int, int]]
) -> None:
    assert holes(cast("Client", DamagedLog(positions, published)), "registry") == expected


def test_what_a_consumer_is_behind_is_told_for_begun_partitions_alone() -> None:
    begun = PartitionStatus(next_offset=3, end_offset=8)
    ahead = PartitionStatus(next_offset=9, end_offset=8)

    assert records_behind([begun, PartitionStatus(end_offset=4), ahead]) == 5
    assert records_behind([begun, PartitionStatus(next_offset=1)]) is None
    assert records_behind([]) == 0


def test_a_consumer_has_a_row_for_each_topic() -> None:
    status = ConsumerStatus(
        consumer="x.one",
        parked_events=2,
        partitions=[
            PartitionStatus(topic="a", next_offset=1, end_offset=4, source="headrace/a", position=7),
            PartitionStatus(topic="a", partition=1, next_offset=2, end_offset=2, source="headrace/a", position=9),
            PartitionStatus(topic="b", next_offset=1),
        ],
    )

    assert consumer_rows(status) == [("x.one", "a", "3", "9", 2), ("x.one", "b", "?", "", 2)]
    assert consumer_rows(ConsumerStatus(consumer="x.two")) == [("x.two", "", "not begun", "", 0)]


def test_a_trace_context_has_a_trace_id() -> None:
    assert trace_id("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") == "0af7651916cd43dd8448eb211c80319c"
    assert trace_id("") == ""


def entry_of(event: Message) -> LogEntry:
    name = event.DESCRIPTOR.full_name.replace("headrace.api.", "headrace.", 1)
    return LogEntry(type=name, data=event.SerializeToString())


class DamagedLog:
    """A log that lost entries, two of which make a page; it is the client and the stub at once."""

    def __init__(self, positions: list[int], published: int) -> None:
        self.positions, self.published = positions, published

    def log(self, name: str) -> DamagedLog:
        assert name == "registry"
        return self

    def GetLogStatus(self, request: GetLogStatusRequest) -> GetLogStatusResponse:  # noqa: N802 - named by the protos
        last = max(self.positions, default=0)
        return GetLogStatusResponse(last_position=last, relayed_position=self.published)

    def ReadLog(self, request: ReadLogRequest) -> ReadLogResponse:  # noqa: N802 - as above
        found = [each for each in self.positions if each >= request.from_position]
        entries = [LogEntry(position=each) for each in found[:2]]
        return ReadLogResponse(entries=entries, end_of_log=len(found) <= 2)
