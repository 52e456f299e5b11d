"""Tracking's store and writer on a database, without a server."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from headrace.api.tracking.v1 import events_pb2 as events
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import CodeVersion
from headrace_kit.context import CommandContext
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.eventtypes import EventTypes
from headrace_kit.postgres import Database
from headrace_tracking import domain
from headrace_tracking.events import EVENT_TYPES
from headrace_tracking.filters import parse_filter, parse_order
from headrace_tracking.metrics import MetricWriter
from headrace_tracking.pointstore import MetricCommand, PointStore
from headrace_tracking.sealing import INTERVAL_S, Sealer
from headrace_tracking.store import RUN, RunStore
from tests.support.points import columns_of

START = datetime(2026, 3, 1, tzinfo=UTC)


class Tracking:
    """Tracking's store and writer on one database."""

    def __init__(self, database: Database, *, seal_s: float = INTERVAL_S) -> None:
        self.database = database
        self.store = PostgresEventStore(database, "headrace/tracking", EventTypes(*EVENT_TYPES))
        self.points = PointStore(database)
        self.sealer = Sealer(self.store, self.points, interval_s=seal_s)
        self.writer = MetricWriter(self.points, self.sealer)
        self.runs = RunStore(database)

    async def start(
        self,
        number: int = 0,
        *,
        hours: int | None = None,
        parent: str = "",
        code: CodeVersion | None = None,
        fork_from: str = "",
        at_step: int = 0,
        group: str = "",
        **params: str,
    ) -> str:
        name = f"projects/default/runs/{uuid4()}"
        history = await self.runs.history(fork_from, up_to=at_step) if fork_from else domain.NO_HISTORY
        request = service.StartRunRequest(
            name=name,
            experiment="projects/default/experiments/x",
            display_name=f"run {number}",
            parent_run=parent,
            code=code,
            forked_from=fork_from,
            fork_step=at_step,
            group=group,
        )
        request.start_time.FromDatetime(START + timedelta(hours=number if hours is None else hours))
        command = context()
        await self.store.execute(
            RUN,
            name,
            context=command,
            request=request,
            decide=lambda state: domain.decide_start(state, request, command, history=history),
            respond=lambda run: service.StartRunResponse(run=run),
        )
        if params:
            logged = service.LogParamsRequest(run=name, params=params)
            await self.store.execute(
                RUN,
                name,
                context=context(),
                request=logged,
                decide=lambda state: domain.decide_params(state, logged),
                respond=lambda run: service.LogParamsResponse(run=run),
            )
        return name

    async def log(self, run: str, *points: tuple[str, float, int], command_id: UUID | None = None) -> int:
        values = columns_of([(key, step, step * 1_000_000, value) for key, value, step in points])
        hashed = hashlib.sha256(repr((run, points)).encode()).digest()
        return await self.writer.write(MetricCommand(run, context(command_id), hashed, values))

    async def recover_and_seal(self) -> None:
        """What a process that starts anew does first, until it is done."""
        sealer = Sealer(self.store, self.points)
        await sealer.recover()
        await sealer.close()

    async def until_sealed(self) -> None:
        """Waits until every point has its event."""
        while await self.points.unsealed():
            await asyncio.sleep(0.05)

    async def search(self, text: str, order: str = "") -> list[str]:
        found = await self.runs.search(
            "default", experiments=[], condition=parse_filter(text), orders=parse_order(order), limit=100
        )
        return [each.display_name for each in found.runs]

    async def pages(self, text: str, order: str, *, limit: int, between: Callable[[], Awaitable[None]]) -> list[str]:
        """Every page of a search, with something done between any two."""
        names: list[str] = []
        after = ""
        while True:
            found = await self.runs.search(
                "default",
                experiments=[],
                condition=parse_filter(text),
                orders=parse_order(order),
                after=after,
                limit=limit,
            )
            names += [each.display_name for each in found.runs]
            if len(found.runs) < limit:
                return names
            after = found.place
            await between()


def context(command_id: UUID | None = None) -> CommandContext:
    return CommandContext(command_id=command_id or uuid4(), actor="persons/ada", now=datetime.now(UTC))


async def recorded(tracking: Tracking, run: str) -> list[events.MetricsRecorded]:
    stored = await tracking.store.read_stream(run)
    return [each.message for each in stored if isinstance(each.message, events.MetricsRecorded)]
