"""How an event reaches its handler: before the offset moves, or in the very transaction that moves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message

from headrace_kit import metrics
from headrace_kit.cloudevents import ReceivedEvent, decoded
from headrace_kit.consumer.offsets import Arrival, PartitionLost
from headrace_kit.errors import DeadlineExceeded
from headrace_kit.eventtypes import EventTypes, has_unknown_fields, is_known
from headrace_kit.postgres import Connection, ConnectionLost, Database
from headrace_kit.rpc import peer_errors
from headrace_kit.tracing import consumer_span
from headrace_kit.upcasting import PLATFORM, Upcasters

Handler = Callable[[ReceivedEvent], Awaitable[None]]
"""Answers an event, at least once: effects are commands of ``CommandContext.caused_by``, so a repeat has none.

Errors of calls to other services are the kit's when they reach the consumer: what is retryable is tried again later.
"""

ProjectionHandler = Callable[[ReceivedEvent, Connection], Awaitable[None]]
"""Writes an event's rows, exactly once: the connection's transaction moves the offset too."""

HANDLER_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Step:
    """One arrival in order; ``fresh`` unless it was seen before."""

    arrival: Arrival
    fresh: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """The first ``done`` steps are behind us; ``error`` is what the next one ended with."""

    done: int
    error: Exception | None = None


Commit = Callable[[Connection, Sequence[Step]], Awaitable[None]]
"""Moves offset, position and versions past these steps, inside a transaction."""

Remove = Callable[[Connection], Awaitable[bool]]
"""Takes a parked event out, inside a transaction; False when it is gone already."""


class Delivery(Protocol):
    """One way of delivering."""

    async def run(self, steps: Sequence[Step], commit: Commit) -> Outcome:
        """Delivers steps in order until one fails, and moves the offset past those done."""
        ...

    async def again(self, event: ReceivedEvent, remove: Remove) -> None:
        """Delivers a parked event and takes it out; raises what the handler raises."""
        ...


class HandlerDelivery:
    """Handlers run on their own; then the offset moves."""

    def __init__(
        self,
        handlers: Mapping[type[Message], Handler],
        database: Database,
        *,
        upcasters: Upcasters = PLATFORM,
    ) -> None:
        self._handlers = handlers
        self._types = EventTypes(*handlers, upcasters=upcasters)
        self._database = database

    async def run(self, steps: Sequence[Step], commit: Commit) -> Outcome:
        """As ``Delivery.run``."""
        outcome = Outcome(len(steps))
        for index, step in enumerate(steps):
            if step.fresh:
                try:
                    await self._handle(step.arrival.event)
                except Exception as error:  # noqa: BLE001 - judged by the lane: later again, or parked with its cause
                    outcome = Outcome(index, error)
                    break
        if outcome.done:
            async with self._database.transaction() as connection:
                await commit(connection, steps[: outcome.done])
        return outcome

    async def again(self, event: ReceivedEvent, remove: Remove) -> None:
        """As ``Delivery.again``."""
        await self._handle(event)
        async with self._database.transaction() as connection:
            await remove(connection)

    async def _handle(self, received: ReceivedEvent) -> None:
        event = _understood(received, self._types)
        if event.message is not None:
            with consumer_span(event.type, event.traceparent), peer_errors():
                async with _deadline():
                    await self._handlers[type(event.message)](event)


class ProjectionDelivery:
    """Handlers run inside the transaction that moves the offset; a failure leaves the steps before it alone."""

    def __init__(
        self,
        handlers: Mapping[type[Message], ProjectionHandler],
        database: Database,
        *,
        upcasters: Upcasters = PLATFORM,
    ) -> None:
        self._handlers = handlers
        self._types = EventTypes(*handlers, upcasters=upcasters)
        self._database = database

    async def run(self, steps: Sequence[Step], commit: Commit) -> Outcome:
        """As ``Delivery.run``."""
        index = 0
        try:
            async with self._database.transaction() as connection:
                for index, step in enumerate(steps):  # noqa: B007 - names the step that failed
                    if step.fresh:
                        await self._handle(step.arrival.event, connection)
                index = len(steps)
                await commit(connection, steps)
        except (ConnectionLost, PartitionLost):
            raise
        except Exception as error:
            if index == len(steps):
                raise
            before = await self.run(steps[:index], commit) if index else Outcome(0)
            return before if before.error else Outcome(before.done, error)
        return Outcome(len(steps))

    async def again(self, event: ReceivedEvent, remove: Remove) -> None:
        """As ``Delivery.again``."""
        async with self._database.transaction() as connection:
            if await remove(connection):
                await self._handle(event, connection)

    async def _handle(self, received: ReceivedEvent, connection: Connection) -> None:
        event = _understood(received, self._types)
        if event.message is not None:
            async with _deadline():
                await self._handlers[type(event.message)](event, connection)


def _understood(received: ReceivedEvent, types: EventTypes) -> ReceivedEvent:
    """The event with its message where a handler takes it; what a newer writer put there is counted.

    Raises:
        MalformedEvent: the value is not such a message.
    """
    event = decoded(received, types)
    if event.message is None:
        if not is_known(event.type):
            metrics.EVENTS_UNKNOWN.labels(event.source, "type").inc()
    elif has_unknown_fields(event.message):
        metrics.EVENTS_UNKNOWN.labels(event.source, "fields").inc()
    return event


@asynccontextmanager
async def _deadline() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(HANDLER_TIMEOUT_S):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(f"the handler took more than {HANDLER_TIMEOUT_S} s") from error
