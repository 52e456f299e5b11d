"""Logs in memory that are served over real gRPC: what subscribers, exports and replays read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.audit.v1.service_pb2_grpc import add_AuditServiceServicer_to_server
from headrace.api.monitor.v1.events_pb2 import AlertRaised
from headrace.api.monitor.v1.resources_pb2 import Alert
from headrace.api.registry.v1.events_pb2 import VersionPromoted
from headrace.connection import Connection
from headrace.merkle import Range
from headrace_kit.audit import AuditServicer
from headrace_kit.auth import Tokens
from headrace_kit.context import CommandContext
from headrace_kit.eventstore import Aggregate, MemoryEventStore, StoredEvent
from headrace_kit.eventstore import LogEntry as StoredEntry
from headrace_kit.eventtypes import EventTypes
from headrace_kit.leaf import leaf_bytes
from headrace_kit.logmessages import entry_message
from headrace_kit.rpc import Server
from headrace_kit.testing import OPERATOR_CALLER, FixedClock, write_tokens
from tests.support.counters import whole_log

TYPES = EventTypes(AlertRaised, VersionPromoted, Int64Value)
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANYTHING = Aggregate("anything", StringValue, lambda state, _: state or StringValue(value="there"))


def content_of(entry: StoredEntry) -> bytes:
    """What its leaf is made of."""
    event = entry.event
    return leaf_bytes(
        source=entry.source,
        position=entry.position,
        event_id=event.event_id,
        stream_id=event.stream_id,
        version=event.version,
        type=event.type,
        occurred_at=event.occurred_at,
        recorded_at=event.recorded_at,
        sequenced_at=entry.sequenced_at,
        hlc=event.hlc,
        meta=event.meta,
        data=event.data,
    )


class MemoryAudit(AuditServicer):
    """The audit service over a log in memory, which has no relay, no notary, and no database."""

    def __init__(self, store: MemoryEventStore) -> None:
        self._memory = store
        anything = cast("Any", store)
        anything.database = None  # reads of the log, and the tree below, do not ask it
        super().__init__(anything, cast("Any", None), {})

    async def GetTree(  # noqa: N802 - named by the protos
        self, request: service.GetTreeRequest, context: Any
    ) -> service.GetTreeResponse:
        tree = Range()
        tree.extend(each.leaf for each in await self._memory.read_log(1, request.size or 1 << 60))
        return service.GetTreeResponse(source=self._memory.source, size=tree.size, root=tree.root(), peaks=tree.peaks)

    async def ReadLeaves(  # noqa: N802 - named by the protos
        self, request: service.ReadLeavesRequest, context: Any
    ) -> AsyncIterator[service.ReadLeavesResponse]:
        entries = await self._memory.read_log(request.from_position, 1 << 60)
        wanted = [each for each in entries if each.position <= request.to_position]
        for part in (wanted[at : at + 4] for at in range(0, len(wanted), 4)):
            yield service.ReadLeavesResponse(
                positions=[each.position for each in part],
                leaf_bytes=[content_of(each) for each in part],
                leaves=b"".join(each.leaf for each in part),
            )

    async def _filling(self) -> bool:
        return False

    async def _entries(self, events: Sequence[StoredEvent]) -> list[LogEntry]:
        wanted = {event.event_id for event in events}
        return [entry_message(each) for each in await whole_log(self._memory) if each.event.event_id in wanted]

    async def GetLogStatus(  # noqa: N802 - named by the protos
        self, request: service.GetLogStatusRequest, context: Any
    ) -> service.GetLogStatusResponse:
        return service.GetLogStatusResponse(last_position=await self._memory.head(), source=self._memory.source)


@dataclass
class LogServer:
    """One service's log on a port that it keeps when it is stopped and started again."""

    name: str
    tokens: Path
    clock: FixedClock
    server: Server | None = None
    port: int = 0
    store: MemoryEventStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemoryEventStore(f"headrace/{self.name}", TYPES, self.clock)

    async def start(self) -> None:
        servicer = MemoryAudit(self.store)
        self.server = Server(
            self.name,
            listen=f"127.0.0.1:{self.port}",
            tokens=Tokens(self.tokens),
            servicers=[(add_AuditServiceServicer_to_server, servicer)],
        )
        await self.server.start()
        self.port = self.server.port

    async def stop(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            await server.drain(0)


@dataclass
class Logs:
    """The logs of some services, and one clock for all."""

    clock: FixedClock
    servers: Mapping[str, LogServer]

    @property
    def connection(self) -> Connection:
        addresses = {name: f"127.0.0.1:{each.port}" for name, each in self.servers.items()}
        return Connection(addresses=addresses, token=OPERATOR_CALLER.token)

    @property
    def environment(self) -> dict[str, str]:
        """For programs that find the platform by it."""
        found = {f"HEADRACE_{name.upper()}_ADDRESS": address for name, address in self.connection.addresses.items()}
        return {**found, "HEADRACE_TOKEN": OPERATOR_CALLER.token}

    async def raise_alert(self, summary: str, *, project: str = "default", stream: str = "monitors/m") -> None:
        """Adds an ``AlertRaised`` to the monitor's log."""
        name = f"projects/{project}/{stream}"
        alert = Alert(name=f"projects/{project}/alerts/{summary}", monitor=name, summary=summary)
        await self.add("monitor", name, AlertRaised(alert=alert))

    async def promote(self, version: str, *, model: str = "m", project: str = "default") -> None:
        """Adds a ``VersionPromoted`` to the registry's log."""
        name = f"projects/{project}/models/{model}"
        await self.add("registry", name, VersionPromoted(version=f"{name}/versions/{version}"))

    async def add(self, service_name: str, stream: str, *events: Message, cause: str = "") -> str:
        """Adds events to a stream, a second after those before; returns the id of the first."""
        self.clock.advance(timedelta(seconds=1))
        caused_by = UUID(cause) if cause else None
        context = CommandContext(uuid4(), "persons/operator", self.clock.now, causation_id=caused_by)
        await self.servers[service_name].store.execute(
            ANYTHING,
            stream,
            context=context,
            request=StringValue(value=str(context.command_id)),
            decide=lambda _: events,
            respond=lambda state: state,
        )
        return str(context.event_id(0))


@asynccontextmanager
async def served_logs(folder: Path, *services: str) -> AsyncIterator[Logs]:
    """Serves logs until the block ends."""
    tokens = write_tokens(folder / "tokens.json", [OPERATOR_CALLER])
    clock = FixedClock(START)
    servers = {name: LogServer(name, tokens, clock) for name in services}
    async with AsyncExitStack() as stack:
        for each in servers.values():
            await each.start()
            stack.push_async_callback(each.stop)
        yield Logs(clock, servers)


async def until_true(condition: Any, *, within_s: float = 20.0) -> None:
    """Waits for a condition of another thread or process, with a deadline."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)
