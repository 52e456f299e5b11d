"""Decisions on a registered pipeline: its definition, schedules and triggers. Pure.

The state of the stream is the :class:`Pipeline` message.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.orchestrator.v1 import events_pb2 as events
from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace_kit.context import CommandContext
from headrace_kit.errors import InvalidArgument, NotFound, ResourceExhausted

T = TypeVar("T", resources.Schedule, resources.Trigger)

MAX_STEPS = 1000
MAX_PARAMETERS = 200
MAX_JSON_BYTES = 64 * 1024
MAX_ATTEMPTS = 100
MAX_TIMEOUT_S = 604_800.0
MAX_BACKOFF_S = 86_400.0
MAX_AFTER = 100
MAX_LIST_ITEMS = 1000
MAX_SCHEDULES = 100
MAX_TRIGGERS = 100
MAX_MATCHES = 20
MAX_MAPPED = 50
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_LOWER_ID = re.compile(r"[a-z0-9._-]{1,100}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_FUNCTION = re.compile(r"[A-Za-z_][\w]*(\.[A-Za-z_][\w]*)*:[A-Za-z_][\w]*(\.[A-Za-z_][\w]*)*")
_PATH = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){0,7}")
_EVENT_TYPE = re.compile(r"headrace\.[a-z]+\.v[0-9]+\.[A-Za-z]+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TYPES: Mapping[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def decide_register(
    state: resources.Pipeline | None, command: service.RegisterPipelineRequest, context: CommandContext
) -> list[Message]:
    """A new pipeline or definition; nothing when it is the newest one already.

    Raises:
        InvalidArgument: the definition is not sound; the field is named.
    """
    check_definition(command.definition)
    if state is not None and state.definition == command.definition:
        return []
    registered = events.PipelineRegistered(
        pipeline=command.name,
        definition=command.definition,
        version=state.version + 1 if state is not None else 1,
        actor=context.actor,
        time=_timestamp(context.now),
    )
    return [registered]


def decide_set_schedule(
    state: resources.Pipeline | None, command: service.SetScheduleRequest, context: CommandContext
) -> list[Message]:
    """A schedule, new or in the place of one of its id."""
    pipeline = existing(state)
    asked = command.schedule
    _require(_LOWER_ID.fullmatch(asked.id), "1 to 100 characters of a-z 0-9 . _ -", "schedule.id")
    cron_of(asked, context.now)
    check_parameters(pipeline.definition, asked.parameters, field="schedule.parameters")
    before = next((each for each in pipeline.schedules if each.id == asked.id), None)
    if before is None and len(pipeline.schedules) >= MAX_SCHEDULES:
        raise ResourceExhausted(f"{pipeline.name} has {MAX_SCHEDULES} schedules", field="schedule")
    schedule = resources.Schedule()
    schedule.CopyFrom(asked)
    schedule.ClearField("last_time")
    schedule.set_time.CopyFrom(_timestamp(context.now))
    return [events.ScheduleSet(pipeline=pipeline.name, schedule=schedule)]


def decide_remove_schedule(state: resources.Pipeline | None, command: service.RemoveScheduleRequest) -> list[Message]:
    """The end of a schedule. Raises NotFound."""
    pipeline = existing(state)
    if all(each.id != command.id for each in pipeline.schedules):
        raise NotFound("schedule", command.id, field="id")
    return [events.ScheduleRemoved(pipeline=pipeline.name, id=command.id)]


def decide_fired(state: resources.Pipeline | None, *, schedule: str, nominal: datetime, run: str) -> list[Message]:
    """A schedule started a run; nothing when it was removed or is past that time."""
    pipeline = existing(state)
    found = next((each for each in pipeline.schedules if each.id == schedule), None)
    if found is None or (found.HasField("last_time") and found.last_time.ToDatetime(nominal.tzinfo) >= nominal):
        return []
    return [events.ScheduleFired(pipeline=pipeline.name, id=schedule, nominal_time=_timestamp(nominal), run=run)]


def decide_set_trigger(state: resources.Pipeline | None, command: service.SetTriggerRequest) -> list[Message]:
    """A trigger, new or in the place of one of its id; nothing when it is so already."""
    pipeline = existing(state)
    trigger = command.trigger
    _check_trigger(trigger)
    known = {each.name for each in pipeline.definition.parameters}
    for name in trigger.parameters:
        _require(name in known, f"the pipeline has no parameter {name!r}", f"trigger.parameters[{name!r}]")
    before = next((each for each in pipeline.triggers if each.id == trigger.id), None)
    if before is None and len(pipeline.triggers) >= MAX_TRIGGERS:
        raise ResourceExhausted(f"{pipeline.name} has {MAX_TRIGGERS} triggers", field="trigger")
    return [] if before == trigger else [events.TriggerSet(pipeline=pipeline.name, trigger=trigger)]


def decide_remove_trigger(state: resources.Pipeline | None, command: service.RemoveTriggerRequest) -> list[Message]:
    """The end of a trigger. Raises NotFound."""
    pipeline = existing(state)
    if all(each.id != command.id for each in pipeline.triggers):
        raise NotFound("trigger", command.id, field="id")
    return [events.TriggerRemoved(pipeline=pipeline.name, id=command.id)]


def decide_suppressed(state: resources.Pipeline | None, *, trigger: str, event_id: str, reason: str) -> list[Message]:
    """A record that an event matched and why it started nothing."""
    pipeline = existing(state)
    suppressed = events.TriggerSuppressed(pipeline=pipeline.name, trigger=trigger, event_id=event_id, reason=reason)
    return [suppressed]


def existing(state: resources.Pipeline | None) -> resources.Pipeline:
    """The state. Raises NotFound when there is none."""
    if state is None:
        raise NotFound("the pipeline does not exist", field="pipeline")
    return state


def evolve(state: resources.Pipeline | None, event: Message) -> resources.Pipeline:
    """The state after an event."""
    pipeline = resources.Pipeline()
    if state is not None:
        pipeline.CopyFrom(state)
    elif not isinstance(event, events.PipelineRegistered):
        raise TypeError(f"a pipeline does not begin with {event.DESCRIPTOR.full_name}")
    pipeline.revision += 1
    match event:
        case events.PipelineRegistered():
            _apply_registered(pipeline, event)
        case events.ScheduleSet():
            _put(pipeline.schedules, event.schedule)
        case events.ScheduleRemoved():
            _drop(pipeline.schedules, event.id)
        case events.ScheduleFired():
            _apply_fired(pipeline, event)
        case events.TriggerSet():
            _put(pipeline.triggers, event.trigger)
        case events.TriggerRemoved():
            _drop(pipeline.triggers, event.id)
        case events.TriggerSuppressed():
            pass
        case _:
            raise TypeError(f"{event.DESCRIPTOR.full_name} is no event of a pipeline")
    return pipeline


def needed_steps(step: resources.StepDefinition) -> set[str]:
    """Ids of the steps that must be completed before this one."""
    return {source.step for source in _sources(step) if source.WhichOneof("source") == "step"} | set(step.after)


def check_definition(definition: resources.PipelineDefinition) -> None:
    """Raises InvalidArgument, with the field, unless a definition is sound."""
    _require(_FUNCTION.fullmatch(definition.entrypoint), "give package.module:function", "definition.entrypoint")
    _require(len(definition.entrypoint) <= 500, "at most 500 characters", "definition.entrypoint")
    _require(len(definition.source_path) <= 2000, "at most 2000 characters", "definition.source_path")
    digest = definition.source_digest
    _require(not digest or _DIGEST.fullmatch(digest), "64 lower-case hex digits", "definition.source_digest")
    _require(len(definition.description) <= 10_000, "at most 10000 characters", "definition.description")
    _require(definition.max_active_runs >= 0, "0 or more", "definition.max_active_runs")
    _require(len(definition.parameters) <= MAX_PARAMETERS, f"at most {MAX_PARAMETERS}", "definition.parameters")
    _require(1 <= len(definition.steps) <= MAX_STEPS, f"1 to {MAX_STEPS} steps", "definition.steps")
    names: set[str] = set()
    for index, parameter in enumerate(definition.parameters):
        _check_parameter(parameter, names, f"definition.parameters[{index}]")
    ids: set[str] = set()
    for index, step in enumerate(definition.steps):
        _check_step(step, earlier=ids, parameters=names, field=f"definition.steps[{index}]")
        ids.add(step.id)


def check_parameters(
    definition: resources.PipelineDefinition, given: Mapping[str, str], *, field: str = "parameters"
) -> dict[str, str]:
    """The parameters of a run, as JSON by name, with defaults.

    Raises:
        InvalidArgument: one is missing, unknown or of another type.
    """
    known = {each.name: each for each in definition.parameters}
    for name in given:
        _require(name in known, f"the pipeline has no parameter {name!r}", f"{field}[{name!r}]")
    _require(
        sum(len(each.encode()) for each in given.values()) <= MAX_JSON_BYTES,
        f"together at most {MAX_JSON_BYTES} bytes",
        field,
    )
    parameters: dict[str, str] = {}
    for name, parameter in known.items():
        text = given.get(name, "") or parameter.default_json
        path = f"{field}[{name!r}]"
        _require(text, "it has no default and must be given", path)
        _check_type(_json(text, path), parameter.type, path)
        parameters[name] = text
    return parameters


def cron_of(schedule: resources.Schedule, after: datetime, *, backwards: bool = False) -> CronSim:
    """The nominal times of a schedule after (or, ``backwards``, before) a time, in its own time zone.

    Raises:
        InvalidArgument: the expression or the zone is not valid.
    """
    try:
        zone = ZoneInfo(schedule.time_zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidArgument(f"no time zone {schedule.time_zone!r}", field="schedule.time_zone") from error
    _require(len(schedule.cron.split()) == 5, "five fields: minute hour day month weekday", "schedule.cron")
    try:
        return CronSim(schedule.cron, after.astimezone(zone), reverse=backwards)
    except CronSimError as error:
        raise InvalidArgument(f"not a cron expression: {error}", field="schedule.cron") from error


def require_step_id(text: str, *, field: str) -> None:
    """Raises InvalidArgument unless a text may be the id of a step."""
    _require(_ID.fullmatch(text), "1 to 100 characters of A-Z a-z 0-9 _ . -", field)


def _check_parameter(parameter: resources.ParameterDefinition, names: set[str], field: str) -> None:
    _require(_NAME.fullmatch(parameter.name), "a Python name of at most 100 characters", f"{field}.name")
    _require(parameter.name not in names, f"{parameter.name!r} stands twice", f"{field}.name")
    _require(not parameter.type or parameter.type in _TYPES, f"one of {', '.join(_TYPES)}", f"{field}.type")
    if parameter.default_json:
        _check_type(_json(parameter.default_json, f"{field}.default_json"), parameter.type, f"{field}.default_json")
    names.add(parameter.name)


def _check_step(step: resources.StepDefinition, *, earlier: set[str], parameters: set[str], field: str) -> None:
    require_step_id(step.id, field=f"{field}.id")
    _require(step.id not in earlier, f"{step.id!r} stands twice", f"{field}.id")
    _require(_FUNCTION.fullmatch(step.function), "give package.module:function", f"{field}.function")
    _require(len(step.function) <= 500, "at most 500 characters", f"{field}.function")
    _require(_within(step.timeout_s, MAX_TIMEOUT_S), f"0 to {MAX_TIMEOUT_S:.0f}", f"{field}.timeout_s")
    retry = step.retry
    _require(0 <= retry.max_attempts <= MAX_ATTEMPTS, f"0 to {MAX_ATTEMPTS}", f"{field}.retry.max_attempts")
    _require(_within(retry.backoff_s, MAX_BACKOFF_S), f"0 to {MAX_BACKOFF_S:.0f}", f"{field}.retry.backoff_s")
    _require(_within(retry.max_backoff_s, MAX_BACKOFF_S), f"0 to {MAX_BACKOFF_S:.0f}", f"{field}.retry.max_backoff_s")
    _require(len(step.after) <= MAX_AFTER, f"at most {MAX_AFTER}", f"{field}.after")
    arguments: set[str] = set()
    for index, source in enumerate(step.inputs):
        path = f"{field}.inputs[{index}]"
        _require(_NAME.fullmatch(source.argument), "a Python name of at most 100 characters", f"{path}.argument")
        _require(source.argument not in arguments, f"{source.argument!r} stands twice", f"{path}.argument")
        arguments.add(source.argument)
        _require(len(source.list.items) <= MAX_LIST_ITEMS, f"at most {MAX_LIST_ITEMS}", f"{path}.list.items")
        nested = any(item.WhichOneof("source") == "list" for item in source.list.items)
        _require(not nested, "lists do not nest", f"{path}.list.items")
        _require(source.WhichOneof("source"), "give a source", path)
    for source in _sources(step):
        _check_source(source, parameters, f"{field}.inputs")
    for needed in needed_steps(step):
        _require(needed in earlier, f"no earlier step {needed!r}", f"{field}.inputs")


def _check_source(source: resources.StepInput, parameters: set[str], field: str) -> None:
    match source.WhichOneof("source"):
        case "parameter":
            _require(source.parameter in parameters, f"no parameter {source.parameter!r}", field)
        case "constant_json":
            _require(len(source.constant_json.encode()) <= MAX_JSON_BYTES, f"at most {MAX_JSON_BYTES} bytes", field)
            _json(source.constant_json, field)
        case None:
            raise InvalidArgument("an item has no source", field=field)
        case _:
            pass


def _check_trigger(trigger: resources.Trigger) -> None:
    _require(_LOWER_ID.fullmatch(trigger.id), "1 to 100 characters of a-z 0-9 . _ -", "trigger.id")
    example = "such as headrace.monitor.v1.RetrainRequested"
    _require(
        _EVENT_TYPE.fullmatch(trigger.event_type) and len(trigger.event_type) <= 200, example, "trigger.event_type"
    )
    _require(len(trigger.match) <= MAX_MATCHES, f"at most {MAX_MATCHES}", "trigger.match")
    _require(len(trigger.parameters) <= MAX_MAPPED, f"at most {MAX_MAPPED}", "trigger.parameters")
    for path, value in trigger.match.items():
        _require(_PATH.fullmatch(path), "a path such as endpoint or alert.kind", f"trigger.match[{path!r}]")
        _require(len(value) <= 1000, "at most 1000 characters", f"trigger.match[{path!r}]")
    for name, path in trigger.parameters.items():
        _require(_PATH.fullmatch(path), "a path such as endpoint or alert.kind", f"trigger.parameters[{name!r}]")


def _sources(step: resources.StepDefinition) -> Iterator[resources.StepInput]:
    for source in step.inputs:
        if source.WhichOneof("source") == "list":
            yield from source.list.items
        else:
            yield source


def _json(text: str, field: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"not JSON: {error}", field=field) from error


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _check_type(value: object, kind: str, field: str) -> None:
    if not kind:
        return
    fits = isinstance(value, _TYPES[kind]) and (kind == "bool" or not isinstance(value, bool))
    _require(fits, f"it must be of type {kind}", field)


def _within(value: float, most: float) -> bool:
    return math.isfinite(value) and 0 <= value <= most


def _require(condition: object, message: str, field: str) -> None:
    if not condition:
        raise InvalidArgument(message, field=field)


def _apply_registered(pipeline: resources.Pipeline, event: events.PipelineRegistered) -> None:
    if not pipeline.name:
        pipeline.name, pipeline.creator = event.pipeline, event.actor
        pipeline.create_time.CopyFrom(event.time)
    pipeline.definition.CopyFrom(event.definition)
    pipeline.version = event.version


def _apply_fired(pipeline: resources.Pipeline, event: events.ScheduleFired) -> None:
    for each in pipeline.schedules:
        if each.id == event.id:
            each.last_time.CopyFrom(event.nominal_time)


def _put(items: RepeatedCompositeFieldContainer[T], item: T) -> None:
    _drop(items, item.id)
    items.append(item)


def _drop(items: RepeatedCompositeFieldContainer[T], id: str) -> None:
    kept = [each for each in items if each.id != id]
    del items[:]
    items.extend(kept)


def _timestamp(at: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp
