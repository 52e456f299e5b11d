"""Events of the platform for your programs: everything that happened, and everything that comes, at least once.

::

    with headrace.events.subscribe("mailer", types=[AlertRaised]) as events:
        for delivery in events:
            with delivery as event:     # acknowledged when the block ends without an error
                send_mail(event.message)

**Delivery.** Every event that the filter accepts, from the start on, at least once. What was acknowledged is kept in
the cursor; a new process with the same name goes on there. Acknowledgements of the last ``save_every_s`` before a crash
may be lost, and those events come again: an effect that must not happen twice keeps ``event.id``.

**Order.** Events of one service come in order of position, always; so do, then, the versions of a stream. Between
services, everything that lay in the logs when the subscription began comes by (hlc, service, position), so that no
effect precedes its cause. What comes later keeps that order as far as an event reaches the subscriber within
``window_s`` after those that follow it; a service that can not be reached is not waited for, and its events come late.

**Outages.** A service that goes away is tried again, with pauses of up to 5 s, for ever. What no repeat mends (a wrong
token, a filter the service refuses, a cursor of another platform) is raised.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from google.protobuf.message import Message

from headrace.api.monitor.v1.events_pb2 import AlertRaised
from headrace.connection import SERVICES, Connection, find
from headrace.events.aio import AsyncDelivery, AsyncSubscription
from headrace.events.cursor import Cursor, FileCursor, MemoryCursor, cursor_for
from headrace.events.event import Event, EventFilter, chosen_services
from headrace.events.start import BEGINNING, NOW, Start, StartLike
from headrace.events.subscription import Delivery, Subscription, SubscriptionConfig

__all__ = [
    "BEGINNING",
    "NOW",
    "AsyncDelivery",
    "AsyncSubscription",
    "Cursor",
    "Delivery",
    "Event",
    "FileCursor",
    "MemoryCursor",
    "Subscription",
    "SubscriptionConfig",
    "alerts",
    "alerts_async",
    "subscribe",
    "subscribe_async",
]


def subscribe(
    name: str,
    *,
    services: str | Iterable[str] | None = None,
    types: Iterable[type[Message] | str] = (),
    project: str = "",
    stream: str = "",
    start: StartLike = NOW,
    cursor: Cursor | Path | str | None = None,
    connection: Connection | None = None,
    config: SubscriptionConfig | None = None,
) -> Subscription:
    """Subscribes to events, for blocking code.

    Args:
        name: Of the subscription, which is that of its cursor: 1 to 100 letters, digits and ``. _ -``.
        services: Whose events; all that the connection knows by default.
        types: Only these: classes, or names such as ``headrace.registry.v1.VersionPromoted``. At most 100.
        project: Only this project; all by default.
        stream: Only streams that start so: within the project (``models/delays``), or a whole resource name.
        start: Where to begin what the cursor does not know: ``"now"``, ``"beginning"``, a moment (a datetime with a
            time zone, or RFC 3339 text; counts when the service took the event into its log), or the first position
            wanted of each service (those not named begin at their first event).
        cursor: A cursor, or the path of its file; ``subscribers/<name>.json`` in the data folder by default.
        connection: Where the platform is; found by ``find()`` by default.
        config: Limits.

    Raises:
        InvalidArgument: an argument is not of its form; ``field`` names it.
        NotConnected: no platform was found, or a service asked for is not known.
    """
    where = connection or find()
    known = tuple(each for each in SERVICES if where.addresses.get(each))
    chosen = chosen_services(services, SERVICES if services is not None else known)
    for each in chosen:
        where.address(each)
    return Subscription(
        where,
        services=chosen,
        wanted=EventFilter.of(types, project=project, stream=stream),
        start=Start.of(start),
        cursor=cursor_for(name, cursor),
        config=config or SubscriptionConfig(),
    )


def subscribe_async(
    name: str,
    *,
    services: str | Iterable[str] | None = None,
    types: Iterable[type[Message] | str] = (),
    project: str = "",
    stream: str = "",
    start: StartLike = NOW,
    cursor: Cursor | Path | str | None = None,
    connection: Connection | None = None,
    config: SubscriptionConfig | None = None,
) -> AsyncSubscription:
    """Subscribes to events, for asyncio; arguments and errors are those of ``subscribe``.

    ::

        async with headrace.events.subscribe_async("mailer") as events:
            async for delivery in events:
                async with delivery as event:
                    await handle(event)
    """
    return AsyncSubscription(
        subscribe(
            name,
            services=services,
            types=types,
            project=project,
            stream=stream,
            start=start,
            cursor=cursor,
            connection=connection,
            config=config,
        )
    )


def alerts(
    name: str,
    *,
    project: str = "default",
    start: StartLike = NOW,
    cursor: Cursor | Path | str | None = None,
    connection: Connection | None = None,
) -> Subscription:
    """Subscribes to the monitor's alerts; ``event.message.alert`` is the alert. Otherwise as ``subscribe``."""
    return subscribe(
        name,
        services="monitor",
        types=[AlertRaised],
        project=project,
        start=start,
        cursor=cursor,
        connection=connection,
    )


def alerts_async(
    name: str,
    *,
    project: str = "default",
    start: StartLike = NOW,
    cursor: Cursor | Path | str | None = None,
    connection: Connection | None = None,
) -> AsyncSubscription:
    """As ``alerts``, for asyncio."""
    return AsyncSubscription(alerts(name, project=project, start=start, cursor=cursor, connection=connection))
