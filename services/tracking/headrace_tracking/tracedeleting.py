"""Traces go: rows and an event in one transaction, whether somebody deletes them or they are too old.

Which they are is chosen first, and the event tells what they came to. Their rows are held while they are removed; when
something came to one of them meanwhile, all is undone and chosen again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

import structlog

from headrace.api.tracking.v1 import events_pb2 as events
from headrace.api.tracking.v1 import service_pb2 as service
from headrace_kit import metrics
from headrace_kit.context import CommandContext
from headrace_kit.errors import Aborted, KitError
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.postgres import Connection
from headrace_tracking import traces
from headrace_tracking.domain import stamp
from headrace_tracking.filters import Condition
from headrace_tracking.store import EXPERIMENT
from headrace_tracking.tracesearching import TraceSql
from headrace_tracking.tracestore import matching

_log = structlog.get_logger(__name__)
MOST: Final = 1000
"""Traces of one deletion."""
MOST_SPANS: Final = 50_000
"""Spans of one deletion, unless a single trace has more: the transaction is short."""
ATTEMPTS: Final = 20
PAUSE_S: Final = 0.01
"""Rest after the first attempt in vain; it grows by as much each time."""
EVERY_S: Final = 600.0
RETRY_S: Final = 30.0
ACTOR: Final = "services/tracking"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Traces that shall go.

    Attributes:
        names: Which.
        spans: How many spans they have.
        size_bytes: Of all of them.
        more: Whether others match too.
    """

    names: Sequence[str] = ()
    spans: int = 0
    size_bytes: int = 0
    more: bool = False


class TraceDeleter:
    """Removes traces for good.

    Args:
        store: The streams of experiments.
        keep: How long traces are kept; None for ever.
    """

    def __init__(self, store: PostgresEventStore, keep: timedelta | None) -> None:
        self._store, self._database, self._keep = store, store.database, keep
        self.expired_spans = 0
        """Spans that went because of their age, since the start."""

    def oldest(self, now: datetime) -> datetime | None:
        """Traces that began before are not kept; None when all are."""
        return None if self._keep is None else now - self._keep

    async def delete(
        self, request: service.DeleteTracesRequest, condition: Condition | None, command: CommandContext
    ) -> service.DeleteTracesResponse:
        """Removes traces that are named, or match.

        Raises:
            NotFound: There is no such experiment.
            AlreadyExists: The command id was used for another request.
            Aborted: Spans came to these traces again and again.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._delete(request, condition, command)
            except _ChangedError:
                await asyncio.sleep(PAUSE_S * attempt)
        raise Aborted("spans came to these traces again and again")

    async def expire(self, now: datetime) -> int:
        """Removes traces that are too old; how many went."""
        before = self.oldest(now)
        if before is None:
            return 0
        count = 0
        while True:
            experiment: str | None = await self._database.fetchval(
                "SELECT experiment FROM traces WHERE start_time < $1 LIMIT 1", before
            )
            if experiment is None:
                return count
            count += await self._expire(experiment, before, now)

    async def run(self) -> None:
        """Removes traces that are too old, until cancelled. Several processes do no harm."""
        while True:
            try:
                count = await self.expire(datetime.now(UTC))
                if count:
                    _log.info("traces_expired", count=count)
                await asyncio.sleep(EVERY_S)
            except KitError as error:
                _log.warning("traces_not_expired", cause=error.message)
                await asyncio.sleep(RETRY_S)

    async def _delete(
        self, request: service.DeleteTracesRequest, condition: Condition | None, command: CommandContext
    ) -> service.DeleteTracesResponse:
        sql = TraceSql(request.experiment.split("/")[1], condition=condition)
        where = matching(sql, experiments=[request.experiment], condition=condition)
        if request.traces:
            where += f" AND r.name = ANY({sql.parameter(list(request.traces))}::text[])"
        chosen = await self._choose(sql, where, limit=request.limit or MOST)
        answer = service.DeleteTracesResponse(
            trace_count=len(chosen.names), span_count=chosen.spans, size_bytes=chosen.size_bytes, more=chosen.more
        )
        return await self._store.execute(
            EXPERIMENT,
            request.experiment,
            context=command,
            request=request,
            decide=lambda state: traces.decide_delete(state, request, answer, chosen.names, command.now),
            respond=lambda _: answer,
            within=lambda connection: _remove(connection, chosen),
        )

    async def _expire(self, experiment: str, before: datetime, now: datetime) -> int:
        sql = TraceSql(experiment.split("/")[1])
        where = f"{matching(sql, experiments=[experiment], condition=None)} AND r.start_time < {sql.parameter(before)}"
        chosen = await self._choose(sql, where, limit=MOST)
        expired = events.TracesExpired(
            experiment=experiment,
            before=stamp(before),
            trace_count=len(chosen.names),
            span_count=chosen.spans,
            size_bytes=chosen.size_bytes,
            time=stamp(now),
        )
        try:
            await self._store.execute(
                EXPERIMENT,
                experiment,
                context=CommandContext(command_id=uuid4(), actor=ACTOR, now=now),
                request=expired,
                decide=lambda _: [expired] if chosen.names else [],
                respond=lambda _: expired,
                within=lambda connection: _remove(connection, chosen),
            )
        except _ChangedError:
            return 0  # what is left is found again
        self.expired_spans += chosen.spans
        metrics.SPANS_DROPPED.labels("expired").inc(chosen.spans)
        return len(chosen.names)

    async def _choose(self, sql: TraceSql, where: str, *, limit: int) -> Chosen:
        # Only text of this package is SQL here; every value is a parameter, the limit is a number.
        rows = await self._database.fetch(
            f"SELECT r.name, r.span_count, r.size_bytes FROM {sql.source} WHERE {where}"  # noqa: S608
            f" ORDER BY r.start_time, r.name LIMIT {int(limit) + 1}",
            *sql.parameters,
        )
        kept = 0
        spans = 0
        while kept < min(len(rows), limit) and (kept == 0 or spans + rows[kept][1] <= MOST_SPANS):
            spans += rows[kept][1]
            kept += 1
        taken = rows[:kept]
        return Chosen([row[0] for row in taken], spans, sum(row[2] for row in taken), more=len(rows) > kept)


class _ChangedError(Exception):
    """A trace is not any more what was chosen."""


async def _remove(connection: Connection, chosen: Chosen) -> None:
    names = list(chosen.names)
    held = await connection.fetchrow(
        "SELECT count(*), coalesce(sum(span_count), 0), coalesce(sum(size_bytes), 0) FROM"
        " (SELECT * FROM traces WHERE name = ANY($1::text[]) ORDER BY name FOR UPDATE) t",
        names,
    )
    if held is None or tuple(held) != (len(names), chosen.spans, chosen.size_bytes):
        raise _ChangedError
    await connection.execute("DELETE FROM spans WHERE trace = ANY($1::text[])", names)
    await connection.execute("DELETE FROM traces WHERE name = ANY($1::text[])", names)
