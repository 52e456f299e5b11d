"""Contexts, clocks, type names, read-model rows and stream queues: the kit's small parts."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue, Int64Value
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.audit.v1 import resources_pb2
from headrace_kit.context import CommandContext
from headrace_kit.errors import InvalidArgument, KitError, NotFound, ResourceExhausted
from headrace_kit.eventstore import EventMeta, Row, project_of
from headrace_kit.eventstore.rows import compile_rows, encode_rows, last_of_each
from headrace_kit.eventstore.streamqueue import StreamQueues
from headrace_kit.eventtypes import EventTypes, UnknownEventType, type_name
from headrace_kit.hlc import HybridClock, physical
from tests.support.counters import NOW, context
from tests.unit.kit.test_cloudevents import EVENT


def test_a_handler_gives_one_command_for_an_event() -> None:
    first = CommandContext.caused_by(EVENT, "orchestrator.retrain", NOW)
    again = CommandContext.caused_by(EVENT, "orchestrator.retrain", NOW + timedelta(days=9))
    other = CommandContext.caused_by(EVENT, "orchestrator.cancel", NOW)

    assert first.command_id == again.command_id != other.command_id
    assert first.command_id == UUID("3c356421-302c-5a24-9d38-64fb3baae9a3")
    assert (first.actor, first.on_behalf_of) == ("services/orchestrator", "persons/operator")
    assert (first.causation_id, first.correlation_id, first.hlc) == (EVENT.id, EVENT.correlation_id, EVENT.hlc)


def test_a_context_refuses_clocks_that_are_not_utc() -> None:
    for now in (datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))):  # noqa: DTZ001
        with pytest.raises(InvalidArgument):
            CommandContext(uuid4(), "persons/operator", now)


def test_a_context_refuses_commands_of_nobody() -> None:
    with pytest.raises(InvalidArgument, match="who gives it"):
        CommandContext(uuid4(), "", datetime(2026, 1, 1, tzinfo=UTC))


def test_every_error_has_a_stable_reason() -> None:
    def tree(root: type[KitError]) -> list[type[KitError]]:
        return [root, *(each for child in root.__subclasses__() for each in tree(child))]

    for each in tree(KitError):
        assert each.default_reason.isupper()
        assert each.__doc__
    missing = NotFound("run", "projects/p/runs/r")
    assert (str(missing), missing.metadata) == (
        "run projects/p/runs/r does not exist",
        {"kind": "run", "name": "projects/p/runs/r"},
    )


@given(st.lists(st.tuples(st.integers(-10_000, 10_000), st.integers(0, 1 << 60)), max_size=20))
def test_a_clock_rises_whatever_the_wall_clock_does(ticks: list[tuple[int, int]]) -> None:
    clock, last = HybridClock(), 0

    for seconds, above in ticks:
        now = NOW + timedelta(seconds=seconds)
        value = clock.tick(now, above=above)
        assert value > max(last, above)
        assert value >= physical(now)
        last = value


def test_type_names_leave_the_generated_package_out() -> None:
    assert type_name(resources_pb2.EventMeta) == "headrace.audit.v1.EventMeta"
    types = EventTypes(Int64Value)
    assert types.decode("google.protobuf.BoolValue", b"") is None
    with pytest.raises(UnknownEventType):
        types.name(BoolValue())


def test_meta_is_the_audit_apis_message() -> None:
    meta = EventMeta.of(context(UUID(int=5)), "projects/p/runs/r")

    message: Message = resources_pb2.EventMeta.FromString(meta.encode())

    assert message == resources_pb2.EventMeta(
        actor="persons/operator", command_id=str(UUID(int=5)), correlation_id=str(UUID(int=5)), project="p"
    )
    assert EventMeta.decode(meta.encode()) == meta


@pytest.mark.parametrize(
    ("stream_id", "project"),
    [("projects/p/runs/r", "p"), ("projects/p", ""), ("runs/r", ""), ("", ""), ("projects//runs/r", "")],
)
def test_the_project_of_a_stream(stream_id: str, project: str) -> None:
    assert project_of(stream_id) == project


def test_of_several_changes_to_a_row_the_last_wins_and_keeps_what_it_does_not_name() -> None:
    rows = [
        Row("t", {"id": 1}, {"a": 1, "b": 1}),
        Row("t", {"id": 2}, {"a": 9}),
        Row("t", {"id": 1}, {"b": 2}),
        Row("t", {"id": 2}, None),
    ]

    assert last_of_each(rows) == [Row("t", {"id": 1}, {"a": 1, "b": 2}), Row("t", {"id": 2}, None)]


def test_rows_of_one_shape_travel_as_one_parameter() -> None:
    rows = [Row("t", {"id": number}, {"a": number}) for number in range(5)]

    expressions, parameters = compile_rows(rows, first_parameter=18)

    assert len(expressions) == len(parameters) == 1
    assert "$18" in expressions[0]
    assert [each["a"] for each in json.loads(parameters[0])] == [0, 1, 2, 3, 4]


def test_values_become_what_the_database_reads() -> None:
    values = {
        "raw": b"\x00\xff",
        "nan": float("nan"),
        "id": UUID(int=1),
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "on": date(2026, 1, 2),
        "facts": {"list": [1, None, "x"]},
        "none": None,
        "backslash": "\\u0000 is not a NUL",
    }

    assert json.loads(encode_rows([values])) == [
        {
            "raw": "\\x00ff",
            "nan": "nan",
            "id": "00000000-0000-0000-0000-000000000001",
            "at": "2026-01-01T00:00:00+00:00",
            "on": "2026-01-02",
            "facts": {"list": [1, None, "x"]},
            "none": None,
            "backslash": "\\u0000 is not a NUL",
        }
    ]


@pytest.mark.parametrize("value", ["a\x00b", {"deep": "\x00"}, {"nan": float("nan")}])
def test_values_the_database_cannot_hold_are_refused(value: object) -> None:
    with pytest.raises(InvalidArgument):
        encode_rows([{"column": value}])


@pytest.mark.parametrize("name", ["a; DROP TABLE events", 'a"', "A", "", "a b", "a" * 64])
def test_names_that_are_no_identifiers_never_reach_the_database(name: str) -> None:
    for row in (Row(name, {"id": 1}, {}), Row("t", {name: 1}, {}), Row("t", {"id": 1}, {name: 1})):
        with pytest.raises(ValueError, match="identifier"):
            compile_rows([row], first_parameter=1)


async def test_a_full_queue_refuses_and_an_empty_one_is_forgotten() -> None:
    queues = StreamQueues(max_waiting=2)
    go_on = asyncio.Event()

    async def hold() -> None:
        async with queues.turn("s"):
            await go_on.wait()

    holders = [asyncio.create_task(hold()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted):
        async with queues.turn("s"):
            pass
    async with queues.turn("other"):
        go_on.set()
    await asyncio.gather(*holders)

    assert queues._locks == {}
