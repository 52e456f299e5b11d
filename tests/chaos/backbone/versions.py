"""Two versions of a service side by side: alerts as they are today, and as a release to come writes them.

Today is the generated API. The release to come is made of the published descriptors (``protos/baseline.binpb``): its
``AlertRaised`` has a field more, and it has a type more, ``AlertSnoozed``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from headrace.api.monitor.v1.events_pb2 import AlertRaised
from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.consumer import ProjectionConsumer
from headrace_kit.context import CommandContext
from headrace_kit.errors import Aborted
from headrace_kit.eventstore import Aggregate, PostgresEventStore
from headrace_kit.eventtypes import EventTypes
from headrace_kit.log import KafkaLog, KafkaSettings
from headrace_kit.postgres import Connection, create_pool
from tests.support.counters import stream

if TYPE_CHECKING:
    from tests.chaos.backbone.members import Place

ALERTS: Final = 40
"""What each writer raises, over three streams; the newer one snoozes every fourth."""
URGENCY: Final = "high"
_BASELINE: Final = Path(__file__).resolve().parents[3] / "protos" / "baseline.binpb"
_EVENTS: Final = "headrace/api/monitor/v1/events.proto"
_COUNT: Final = Aggregate("alerts", Int64Value, lambda state, _: Int64Value(value=(state.value if state else 0) + 1))


def to_come() -> tuple[type[Message], type[Message]]:
    """``AlertRaised`` and ``AlertSnoozed`` of the release to come, in a pool of their own."""
    files = FileDescriptorSet.FromString(_BASELINE.read_bytes())
    events = next(each for each in files.file if each.name == _EVENTS)
    text, single = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.LABEL_OPTIONAL
    raised = next(each for each in events.message_type if each.name == "AlertRaised")
    raised.field.add(name="urgency", number=1000, type=text, label=single)
    events.message_type.add(name="AlertSnoozed").field.add(name="alert", number=1, type=text, label=single)
    pool = DescriptorPool()
    for each in files.file:
        pool.Add(each)
    names = (f"{events.package}.AlertRaised", f"{events.package}.AlertSnoozed")
    first, second = (GetMessageClass(pool.FindMessageTypeByName(name)) for name in names)
    return first, second


async def write_today(place: Place) -> None:
    """A writer of this release."""
    await _write(place, [AlertRaised], lambda _: [AlertRaised()])


async def write_to_come(place: Place) -> None:
    """A writer of the release to come."""
    raised, snoozed = to_come()

    def events(index: int) -> Sequence[Message]:
        return [raised(urgency=URGENCY), *([snoozed(alert="a")] if index % 4 == 0 else [])]

    await _write(place, [raised, snoozed], events)


async def _write(place: Place, types: Sequence[type[Message]], events: Callable[[int], Sequence[Message]]) -> None:
    scene = place.scene
    store = PostgresEventStore(await create_pool(scene.counters_dsn, max_size=2), scene.source, EventTypes(*types))
    for index in range(ALERTS):
        context = CommandContext(uuid4(), "services/monitor", datetime.now(UTC))
        while not await _written(store, stream(f"alerts-{index % 3}"), context, events(index)):
            pass
    place.file("done").touch()
    await asyncio.Event().wait()


async def _written(
    store: PostgresEventStore, stream_id: str, context: CommandContext, events: Sequence[Message]
) -> bool:
    try:
        await store.execute(
            _COUNT,
            stream_id,
            context=context,
            request=StringValue(),
            decide=lambda _: events,
            respond=lambda _: StringValue(),
        )
    except Aborted:  # the other one was faster, too often
        return False
    return True


async def read_today(place: Place) -> None:
    """A consumer of this release."""
    await _read(place, AlertRaised)


async def read_to_come(place: Place) -> None:
    """A consumer of the release to come."""
    await _read(place, to_come()[0])


async def _read(place: Place, kind: type[Message]) -> None:
    scene = place.scene
    own = await create_pool(scene.answers_dsn, max_size=4)
    reader = place.name.partition("-")[0]

    async def handle(event: ReceivedEvent, connection: Connection) -> None:
        await connection.execute(
            "INSERT INTO counters (name, total, id, raw, note) VALUES ($1, $2, $3, $4, $5)",
            f"{reader} {event.id}",
            event.sequence,
            event.id,
            event.data,
            str(getattr(event.message, "urgency", "unknown here")),
        )

    log = KafkaLog(KafkaSettings(scene.bootstrap))
    await ProjectionConsumer(reader, [scene.topic], {kind: handle}, own, log).run()


ROLES: Final[dict[str, Callable[[Place], Awaitable[None]]]] = {
    "writertoday": write_today,
    "writertocome": write_to_come,
    "readertoday": read_today,
    "readertocome": read_to_come,
}
