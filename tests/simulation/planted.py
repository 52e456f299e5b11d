"""Faults that were made in earnest by others, planted to see that the simulation finds them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid5

from google.protobuf.message import Message

from headrace.api.monitor.v1.events_pb2 import RollbackRequested
from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.consumer import Consumer, Handler
from headrace_kit.consumer.delivery import Commit, HandlerDelivery, Outcome, Step
from headrace_kit.context import CommandContext
from headrace_kit.lease import Fence
from headrace_kit.log import Log, LogProducer
from headrace_kit.postgres import Database
from headrace_kit.relay import Relay
from headrace_registry import rollbacks
from headrace_registry.handlers import RollbackHandler
from headrace_registry.store import MODEL
from tests.simulation.disk import Server
from tests.simulation.virtual import now
from tests.simulation.world import Parts


class MarksFirst(Relay):
    """A relay that marks before it publishes: what it dies with is never published."""

    async def step(self, producer: LogProducer, fence: Fence) -> int:
        """As ``Relay.step``."""
        before = int(await self._store.database.fetchval("SELECT position FROM relay_state WHERE name = 'kafka'"))
        entries = await self._store.read_log_rows(before + 1, self._batch)
        if not entries:
            return 0
        last = int(entries[-1]["position"])
        await self._mark(fence, before, last)
        await self._publish(producer, entries)
        return last - before


class _CommitsFirst(HandlerDelivery):
    async def run(self, steps: Sequence[Step], commit: Commit) -> Outcome:
        async with self._database.transaction() as connection:
            await commit(connection, steps)
        for step in steps:
            if step.fresh:
                await self._handle(step.arrival.event)
        return Outcome(len(steps))


class CommitsFirst(Consumer):
    """A consumer that moves its offset before the effect, as ``enable.auto.commit`` does."""

    def __init__(
        self,
        name: str,
        topics: Collection[str],
        handlers: Mapping[type[Message], Handler],
        database: Database,
        log: Log,
        **others: Any,
    ) -> None:
        super().__init__(name, topics, handlers, database, log, **others)
        self._delivery = _CommitsFirst(handlers, database)


class WaitsForNobody(Server):
    """A sequencer that takes whatever is committed and goes on: what commits later with a lower id is lost."""

    @property
    def xmin(self) -> int:
        """As if no transaction were ever open."""
        return self._next_xid


class ForgetsIdentity(RollbackHandler):
    """A handler whose command has a new id at each delivery."""

    async def handle(self, event: ReceivedEvent) -> None:
        """As ``RollbackHandler.handle``."""
        request = event.message
        assert isinstance(request, RollbackRequested)
        caused = CommandContext.caused_by(event, "registry.rollback", now())
        context = replace(caused, command_id=uuid5(event.id, now().isoformat()))
        await self._store.execute(
            MODEL,
            request.model,
            context=context,
            request=request,
            decide=lambda state: rollbacks.decide_requested(state, request, context),
            respond=lambda model: model,
        )


PLANTED = {
    "a relay that marks before it publishes": Parts(relay=MarksFirst),
    "a consumer that commits offsets before effects": Parts(consumer=CommitsFirst),
    "a sequencer that waits for no open transaction": Parts(server=WaitsForNobody),
    "a handler whose commands have no identity": Parts(rollback=ForgetsIdentity),
}
