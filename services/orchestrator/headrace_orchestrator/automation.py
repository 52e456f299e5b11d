"""What starts runs by itself: schedules, and triggers on events.

The id of the command that starts a run derives from the nominal time, or from the event, so that nothing starts twice.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import cast
from uuid import UUID, uuid5

import orjson
import structlog
from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace_kit.consumer import ReceivedEvent
from headrace_kit.context import CommandContext
from headrace_kit.errors import KitError
from headrace_orchestrator import definitions
from headrace_orchestrator.scheduler import ACTOR, Scheduler

TICKS = UUID("7a1f1f1c-6a3b-5d0e-9d6a-0d3c9a1f7b52")
"""Root of the command ids of schedules. Fixed for ever: changing it makes past times fire again."""
_RETRY_S = 0.5
_log = structlog.get_logger(__name__)


class Automation:
    """Schedules and triggers of all pipelines, for one epoch.

    Args:
        scheduler: Who starts runs.
        now: The clock, UTC.
    """

    def __init__(self, scheduler: Scheduler, now: Callable[[], datetime]) -> None:
        self._scheduler, self._now = scheduler, now
        self._pipelines: dict[str, resources.Pipeline] = {}
        self._armed: set[tuple[str, str, datetime, datetime]] = set()

    def recover(self, pipelines: Iterable[resources.Pipeline]) -> None:
        """Begins with the pipelines of the log; of the times missed meanwhile, a schedule makes up for the latest."""
        for pipeline in pipelines:
            self.follow(pipeline)

    def follow(self, pipeline: resources.Pipeline) -> None:
        """A pipeline is now so."""
        self._pipelines[pipeline.name] = pipeline
        for schedule in pipeline.schedules:
            if schedule.paused:
                continue
            missed = latest_due(schedule, self._now())
            if missed is not None:
                self._arm(pipeline.name, schedule, missed)
            self._arm_next(pipeline.name, schedule)

    async def handle(self, event: ReceivedEvent) -> None:
        """Starts a run for each trigger of the event's project that it matches; says so in the log where none starts.

        Raises:
            KitError: a retryable one; the event comes again.
        """
        if event.message is None:
            return
        for pipeline, trigger in list(self._matching(event, event.message)):
            await self._trigger(pipeline, trigger, event, event.message)

    # --- schedules ------------------------------------------------------------------------------------------------

    def _arm_next(self, pipeline: str, schedule: resources.Schedule) -> None:
        upcoming = next(definitions.cron_of(schedule, self._now()), None)
        if upcoming is not None:
            self._arm(pipeline, schedule, upcoming.astimezone(UTC))

    def _arm(self, pipeline: str, schedule: resources.Schedule, nominal: datetime) -> None:
        set_time = schedule.set_time.ToDatetime(UTC)
        key = (pipeline, schedule.id, set_time, nominal)
        if key not in self._armed:
            self._armed.add(key)
            self._scheduler.timers.at(nominal, partial(self._due, key))

    def _due(self, key: tuple[str, str, datetime, datetime]) -> None:
        self._armed.discard(key)
        name, schedule_id, set_time, nominal = key
        pipeline = self._pipelines[name]
        schedule = next((each for each in pipeline.schedules if each.id == schedule_id), None)
        if schedule is None or schedule.paused or schedule.set_time.ToDatetime(UTC) != set_time:
            return
        self._scheduler.spawn(self._fire(pipeline, schedule, nominal))
        self._arm_next(name, schedule)

    async def _fire(self, pipeline: resources.Pipeline, schedule: resources.Schedule, nominal: datetime) -> None:
        tick = f"{pipeline.name}/schedules/{schedule.id}/{nominal.isoformat()}"
        run = f"{pipeline.name.partition('/pipelines/')[0]}/pipelineRuns/{uuid5(TICKS, tick)}"
        start = CommandContext(command_id=uuid5(TICKS, tick), actor=ACTOR, now=self._now())
        request = service.StartPipelineRunRequest(
            command_id=str(start.command_id), pipeline=pipeline.name, parameters=schedule.parameters
        )
        noted = CommandContext(command_id=uuid5(TICKS, f"{tick}/fired"), actor=ACTOR, now=self._now())
        while True:
            try:
                await self._scheduler.start(request, cause=f"schedule:{schedule.id}", context=start)
                await self._change(
                    pipeline.name,
                    noted,
                    lambda state: definitions.decide_fired(state, schedule=schedule.id, nominal=nominal, run=run),
                )
                return
            except KitError as error:
                _log.warning("schedule_failed", pipeline=pipeline.name, schedule=schedule.id, cause=error.message)
                if not error.retryable:
                    return
                await asyncio.sleep(_RETRY_S)

    # --- triggers -------------------------------------------------------------------------------------------------

    def _matching(
        self, event: ReceivedEvent, message: Message
    ) -> Iterator[tuple[resources.Pipeline, resources.Trigger]]:
        for pipeline in self._pipelines.values():
            if pipeline.name.split("/")[1] != event.project:
                continue
            for trigger in pipeline.triggers:
                if trigger.event_type == event.type and _matches(trigger, message):
                    yield pipeline, trigger

    async def _trigger(
        self, pipeline: resources.Pipeline, trigger: resources.Trigger, event: ReceivedEvent, message: Message
    ) -> None:
        handler = f"orchestrator.trigger/{pipeline.name}/{trigger.id}"
        reason = "the trigger is paused" if trigger.paused else ""
        if not reason:
            context = CommandContext.caused_by(event, handler, self._now(), actor=ACTOR)
            types = {each.name: each.type for each in pipeline.definition.parameters}
            values = {name: _value(message, path) for name, path in trigger.parameters.items()}
            request = service.StartPipelineRunRequest(
                command_id=str(context.command_id),
                pipeline=pipeline.name,
                parameters={name: _json(value, types.get(name, "")) for name, value in values.items()},
            )
            try:
                started = await self._scheduler.start(request, cause=f"trigger:{trigger.id}", context=context)
                if trigger.newest_only:
                    await self._supersede(pipeline, trigger, event, newest=started.run.name)
                return
            except KitError as error:
                if error.retryable:
                    raise
                reason = f"{error.field}: {error.message}" if error.field else error.message
        context = CommandContext.caused_by(event, f"{handler}/suppressed", self._now(), actor=ACTOR)
        await self._change(
            pipeline.name,
            context,
            lambda state: definitions.decide_suppressed(
                state, trigger=trigger.id, event_id=str(event.id), reason=reason[:2000]
            ),
        )

    async def _supersede(
        self, pipeline: resources.Pipeline, trigger: resources.Trigger, event: ReceivedEvent, *, newest: str
    ) -> None:
        """Of the runs of a trigger that wait for a place only the newest is of use: it knows what the others do."""
        for run in self._scheduler.waiting(pipeline.name, cause=f"trigger:{trigger.id}"):
            if run != newest:
                context = CommandContext.caused_by(event, f"orchestrator.superseded/{run}", self._now(), actor=ACTOR)
                await self._scheduler.supersede(run, reason=f"superseded by {newest}", context=context)

    async def _change(
        self, name: str, context: CommandContext, decide: Callable[[resources.Pipeline | None], list[Message]]
    ) -> None:
        after: list[resources.Pipeline] = []

        def respond(state: resources.Pipeline) -> Empty:
            after[:] = [state]
            return Empty()

        await self._scheduler.change_pipeline(name, context=context, request=Empty(), decide=decide, respond=respond)
        if after and after[0].revision >= self._pipelines[name].revision:
            self._pipelines[name] = after[0]


def latest_due(schedule: resources.Schedule, now: datetime) -> datetime | None:
    """The latest nominal time up to ``now`` for which a schedule has started no run since it was set (UTC)."""
    base = max(schedule.set_time.ToDatetime(UTC), schedule.last_time.ToDatetime(UTC))
    inclusive = now.replace(second=0, microsecond=0) + timedelta(seconds=1)
    latest = next(definitions.cron_of(schedule, inclusive, backwards=True), None)
    if latest is None or latest.astimezone(UTC) <= base:
        return None
    return latest.astimezone(UTC)


def _matches(trigger: resources.Trigger, message: Message) -> bool:
    return all(_text(_value(message, path)) == wanted for path, wanted in trigger.match.items())


def _value(message: Message, path: str) -> object:
    """The field at a path in its JSON form (enums by name, times as RFC 3339, 64-bit integers as text), or None."""
    found: object = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    for part in path.split("."):
        found = cast("dict[str, object]", found).get(part) if isinstance(found, dict) else None
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _json(value: object, kind: str) -> str:
    """A value as JSON of a parameter's type; the JSON form of a 64-bit integer is text, and back again here."""
    if kind == "str":
        return orjson.dumps(_text(value)).decode()
    if kind == "int" and isinstance(value, str) and value.lstrip("-").isdecimal():
        return value
    return orjson.dumps(value).decode()
