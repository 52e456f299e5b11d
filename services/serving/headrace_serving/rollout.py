"""Drives rollouts from step to step, and to the registry at the end. One process leads.

Every step's command id derives from the rollout and the step, so a driver that was killed and starts again repeats
nothing. What was counted before a restart is counted anew: a step may take longer then, never shorter.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid5

import structlog

from headrace.api.registry.v1 import service_pb2 as registry_service
from headrace.api.serving.v1 import service_pb2 as service
from headrace.api.serving.v1.resources_pb2 import Endpoint, Rollout
from headrace_kit.context import CommandContext
from headrace_kit.errors import Aborted, FailedPrecondition, KitError, NotFound, PermissionDenied
from headrace_kit.eventstore import EventStore
from headrace_serving import domain
from headrace_serving.endpoints import Endpoints
from headrace_serving.progress import Counted, Verdict, judge
from headrace_serving.registry import Registry
from headrace_serving.router import Router
from headrace_serving.store import EndpointStore

_log = structlog.get_logger(__name__)

POLL_S: Final = 0.2
ACTOR: Final = "services/serving"


@dataclass(frozen=True, slots=True)
class _Start:
    """What was counted when a step was first seen by this process."""

    step: int
    requests: int
    rows: int
    failures: int


class RolloutDriver:
    """Looks at every rollout under way, several times a second.

    Args:
        store: The endpoints' streams, for the event that a step answers.
        endpoints: Which rollouts there are.
        commands: Writes what is decided.
        router: What was counted.
        registry: Moves the alias at the end.
    """

    def __init__(
        self, store: EventStore, endpoints: EndpointStore, commands: Endpoints, router: Router, registry: Registry
    ) -> None:
        self._store, self._endpoints, self._commands = store, endpoints, commands
        self._router, self._registry = router, registry
        self._starts: dict[str, _Start] = {}

    async def run(self) -> None:
        """Drives until cancelled, through outages."""
        while True:
            try:
                under_way = await self._endpoints.rolling_out()
                self._starts = {
                    key: each for key, each in self._starts.items() if key in {e.rollout.id for e in under_way}
                }
                for endpoint in under_way:
                    await self.drive(endpoint)
            except KitError as error:
                _log.warning("rollout_waits", cause=error.message)
            await asyncio.sleep(POLL_S)

    async def drive(self, endpoint: Endpoint) -> Verdict:
        """Judges one rollout and does what the verdict says."""
        rollout = endpoint.rollout
        counted = self._counted(endpoint, rollout)
        verdict, reason = judge(rollout, counted)
        match verdict:
            case Verdict.ADVANCE:
                await self._advance(endpoint, rollout, counted)
            case Verdict.FINISH:
                await self._finish(endpoint, rollout)
            case Verdict.ABORT:
                await self._abort(endpoint, rollout, reason)
            case Verdict.WAIT:
                pass
        return verdict

    def _counted(self, endpoint: Endpoint, rollout: Rollout) -> Counted:
        found = next((each for each in self._router.traffic(endpoint.name) if each.version == rollout.version), None)
        requests, rows, failures = (found.requests, found.rows, found.failures) if found else (0, 0, 0)
        start = self._starts.get(rollout.id)
        if start is None or start.step != rollout.step:
            start = self._starts[rollout.id] = _Start(rollout.step, requests, rows, failures)
        began = rollout.step_time.ToDatetime(tzinfo=UTC)
        return Counted(
            requests=requests - start.requests,
            rows=rows - start.rows,
            failures=failures - start.failures,
            elapsed_s=(datetime.now(UTC) - began).total_seconds(),
        )

    async def _advance(self, endpoint: Endpoint, rollout: Rollout, counted: Counted) -> None:
        context = await self._context(endpoint, rollout, f"step {rollout.step + 1}")
        await self._commands.execute(
            endpoint.name,
            context=context,
            request=Rollout(id=rollout.id, step=rollout.step + 1),
            decide=lambda state: domain.decide_advance(
                state,
                rollout=rollout.id,
                step=rollout.step,
                rows=counted.rows,
                failures=counted.failures,
                context=context,
            ),
            respond=lambda state: state,
        )

    async def _finish(self, endpoint: Endpoint, rollout: Rollout) -> None:
        """Asks the registry to move the alias: it decides; its refusal is the end of the rollout."""
        cause = await self._context(endpoint, rollout, "promote")
        request = registry_service.PromoteVersionRequest(
            command_id=str(cause.command_id),
            version=rollout.version,
            alias=endpoint.alias,
            expected_revision=endpoint.alias_revision,
            reason=f"rollout {rollout.id} passed {len(rollout.steps)} steps",
        )
        try:
            promotion = await self._registry.promote(request, cause)
        except FailedPrecondition as refused:
            await self._abort(
                endpoint, rollout, "; ".join(each.description for each in refused.violations) or refused.message
            )
            return
        except (Aborted, NotFound, PermissionDenied) as refused:
            await self._abort(endpoint, rollout, refused.message)
            return
        context = CommandContext(
            command_id=_identity(rollout, "complete"),
            actor=ACTOR,
            now=datetime.now(UTC),
            on_behalf_of=cause.on_behalf_of,
            causation_id=UUID(promotion.event_id) if promotion.event_id else cause.causation_id,
            correlation_id=cause.correlation_id,
            traceparent=cause.traceparent,
            hlc=cause.hlc,
        )
        await self._commands.execute(
            endpoint.name,
            context=context,
            request=promotion,
            decide=lambda state: domain.decide_alias(
                state, version=rollout.version, revision=promotion.revision, model=endpoint.model, alias=endpoint.alias
            ),
            respond=lambda state: state,
        )

    async def _abort(self, endpoint: Endpoint, rollout: Rollout, reason: str) -> None:
        context = await self._context(endpoint, rollout, "abort")
        await self._commands.execute(
            endpoint.name,
            context=context,
            request=service.AbortRolloutRequest(endpoint=endpoint.name, reason=reason),
            decide=lambda state: domain.decide_abort(state, endpoint=endpoint.name, reason=reason, rollout=rollout.id),
            respond=lambda state: state,
        )

    async def _context(self, endpoint: Endpoint, rollout: Rollout, step: str) -> CommandContext:
        """The context of a command that answers the newest event of the rollout."""
        recent = await self._store.read_stream(endpoint.name, max(endpoint.revision - 1, 1))
        cause = recent[0]
        origin = cause.origin
        return CommandContext(
            command_id=_identity(rollout, step),
            actor=ACTOR,
            now=datetime.now(UTC),
            on_behalf_of=origin.on_behalf_of or origin.actor,
            causation_id=cause.event_id,
            correlation_id=origin.correlation_id,
            traceparent=origin.traceparent,
            hlc=cause.hlc,
        )


def _identity(rollout: Rollout, step: str) -> UUID:
    return uuid5(UUID(rollout.id), step)
