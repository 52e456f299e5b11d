"""Events of newer writers and of earlier days, on their whole way: store, log, relay, consumer, audit API."""

from __future__ import annotations

from typing import Any, cast

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.wrappers_pb2 import Int32Value, Int64Value, StringValue

from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.service_pb2_grpc import AuditServiceStub, add_AuditServiceServicer_to_server
from headrace_kit import metrics
from headrace_kit.audit import AuditServicer
from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.consumer import Consumer
from headrace_kit.eventstore import Aggregate, PostgresEventStore
from headrace_kit.eventtypes import EventTypes
from headrace_kit.log import QUARANTINE, MemoryLog
from headrace_kit.logkeeper import LogKeeper
from headrace_kit.testing import serving
from headrace_kit.upcasting import Upcasters
from headrace_local.testing import FreshDatabase
from tests.support.counters import COUNTER, SOURCE, TOPIC, context, stream
from tests.support.kit import counter_store, until

NEWER_FIELDS = b"\x08\x07\x7a\x03new"
"""The number 7, and a field 15 that nobody here knows."""


def from_the_future() -> type[Message]:
    """An event class that only a newer writer has: it stands in a pool of its own."""
    file = FileDescriptorProto(name="future.proto", package="headrace.api.counters.v1", syntax="proto3")
    kind = FieldDescriptorProto.TYPE_INT64
    value = FieldDescriptorProto(name="value", number=1, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)
    file.message_type.append(DescriptorProto(name="Counted", field=[value]))
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName("headrace.api.counters.v1.Counted"))


class Journey:
    """A newer writer, and everything behind it, which is older."""

    def __init__(self, store: PostgresEventStore, *, upcasters: Upcasters) -> None:
        self.store = store
        self.log = MemoryLog()
        self.log.create(TOPIC, 1)
        self.log.create(QUARANTINE, 1)
        self.keeper = LogKeeper(store, self.log)
        self.handled: list[ReceivedEvent] = []
        self.consumer = Consumer(
            "reader", [TOPIC], {Int64Value: self._note}, store.database, self.log, upcasters=upcasters
        )

    async def _note(self, event: ReceivedEvent) -> None:
        self.handled.append(event)

    async def travel(self, event: Message) -> None:
        """Writes an event and takes it all the way to the consumer."""
        newer = PostgresEventStore(self.store.database, SOURCE, EventTypes(type(event)))
        await newer.execute(
            Aggregate("counter", Int64Value, lambda _, __: Int64Value()),
            stream("a"),
            context=context(),
            request=StringValue(),
            decide=lambda _: [event],
            respond=lambda _: StringValue(),
        )
        fence = await self.keeper.leadership.take()
        assert fence is not None

        async def sequenced() -> bool:
            return await self.keeper.sequencer.step(fence) > 0

        await until(sequenced)
        await self.keeper.relay.step(await self.log.open_producer(), fence)
        client = await self.log.open_consumer([TOPIC], group="reader")
        await self.consumer.step(client, timeout_s=0)

    async def audited(self) -> list[tuple[str, bytes]]:
        """Types and bytes as the audit API tells them."""
        servicer = AuditServicer(self.store, self.keeper, {})
        async with serving([(add_AuditServiceServicer_to_server, servicer)]) as running:
            stub: Any = AuditServiceStub(running.channel())
            page = await stub.ReadLog(service.ReadLogRequest())
        return [(entry.type, entry.data) for entry in page.entries]


def counted(what: str) -> float:
    return cast("float", metrics.EVENTS_UNKNOWN.labels(SOURCE, what)._value.get())


async def test_fields_of_a_newer_writer_survive_and_are_counted(database: FreshDatabase) -> None:
    async with counter_store(database) as store:
        journey, before = Journey(store, upcasters=Upcasters()), counted("fields")

        await journey.travel(Int64Value.FromString(NEWER_FIELDS))

        (event,) = journey.handled
        assert event.data == NEWER_FIELDS
        assert event.message == Int64Value.FromString(NEWER_FIELDS)
        assert [record.value for record in journey.log.records(TOPIC)] == [NEWER_FIELDS]
        assert await journey.audited() == [("google.protobuf.Int64Value", NEWER_FIELDS)]
        assert counted("fields") == before + 1


async def test_types_of_a_newer_writer_survive_and_are_counted(database: FreshDatabase) -> None:
    async with counter_store(database) as store:
        journey, before = Journey(store, upcasters=Upcasters()), counted("type")

        await journey.travel(from_the_future().FromString(b"\x08\x05"))

        assert journey.handled == []
        assert journey.consumer.counters.parked == 0
        assert [record.value for record in journey.log.records(TOPIC)] == [b"\x08\x05"]
        assert await journey.audited() == [("headrace.counters.v1.Counted", b"\x08\x05")]
        assert counted("type") == before + 2  # the relay, then the consumer


async def test_a_known_type_without_a_handler_is_nothing_unknown(database: FreshDatabase) -> None:
    async with counter_store(database) as store:
        journey, before = Journey(store, upcasters=Upcasters()), counted("type")

        await journey.travel(StringValue(value="x"))

        assert counted("type") == before + 1  # the relay's: no event of this owner; the consumer passes over it


@pytest.mark.parametrize("revision", [1, 2])
async def test_an_event_of_earlier_days_is_cast_up_when_read(database: FreshDatabase, revision: int) -> None:
    def widen(event: Message) -> Message:
        return Int64Value(value=1000 * cast("Int32Value", event).value)

    upcasters = Upcasters({Int32Value: widen})
    async with counter_store(database) as store:
        journey = Journey(store, upcasters=upcasters)

        await journey.travel(Int32Value(value=7))

        (event,) = journey.handled
        assert event.message == Int64Value(value=7000)
        assert (event.type, event.data) == ("google.protobuf.Int32Value", b"\x08\x07")
        assert await journey.audited() == [("google.protobuf.Int32Value", b"\x08\x07")]
        today = PostgresEventStore(store.database, SOURCE, EventTypes(Int64Value, upcasters=upcasters))
        (stored,) = await today.read_stream(stream("a"))
        assert (stored.message, stored.data) == (Int64Value(value=7000), b"\x08\x07")
        # A stored state of another revision is folded anew, from events as they are today.
        loaded = await today.load(Aggregate("counter", Int64Value, COUNTER.evolve, revision=revision), stream("a"))
        assert loaded == (Int64Value(value=7000 if revision == 2 else 0), 1)
