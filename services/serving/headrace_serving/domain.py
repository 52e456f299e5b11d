"""Decisions on an endpoint: pure functions from its state and a command to events.

The state of a stream is the :class:`Endpoint` message. Times and ids come from the :class:`CommandContext`.
"""

from collections.abc import Sequence
from datetime import datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.serving.v1 import events_pb2 as events
from headrace.api.serving.v1 import resources_pb2 as resources
from headrace.api.serving.v1 import service_pb2 as service
from headrace_kit.context import CommandContext
from headrace_kit.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from headrace_serving import routes

ALIAS = "production"
DEFAULT_STEPS = (10, 50)
DEFAULT_STEP_ROWS = 1000
DEFAULT_ERROR_RATE = 0.01
DEFAULT_STEP_TIMEOUT_S = 3600.0
PREVIOUS_KEPT = 20
"""Earlier routes an endpoint remembers."""


def decide_create(
    state: resources.Endpoint | None,
    command: service.CreateEndpointRequest,
    context: CommandContext,
    *,
    version: str,
    alias_revision: int,
) -> list[Message]:
    """A new endpoint that answers with the version its alias points to.

    Args:
        state: None unless there is one of the name.
        command: What is asked for.
        context: Who asks.
        version: Resource name of the version; empty while the alias points nowhere.
        alias_revision: Revision of the alias; 0 while there is none.

    Raises:
        AlreadyExists: There is one of the name.
    """
    if state is not None:
        raise AlreadyExists(f"{command.name} exists", field="name")
    endpoint = resources.Endpoint(
        name=command.name,
        model=command.model,
        alias=command.alias or ALIAS,
        routes=routes.whole(version) if version else [],
        telemetry=command.telemetry or resources.TELEMETRY_MODE_ASYNC,
        allow_pickle=command.allow_pickle,
        create_time=_timestamp(context.now),
        creator=context.actor,
        alias_revision=alias_revision,
    )
    return [events.EndpointCreated(endpoint=endpoint)]


def decide_configure(state: resources.Endpoint | None, command: service.ConfigureEndpointRequest) -> list[Message]:
    """Other settings; nothing when they are so already."""
    endpoint = _existing(state, command.name)
    telemetry = command.telemetry or endpoint.telemetry
    allow_pickle = command.allow_pickle if command.HasField("allow_pickle") else endpoint.allow_pickle
    if (telemetry, allow_pickle) == (endpoint.telemetry, endpoint.allow_pickle):
        return []
    return [events.EndpointConfigured(endpoint=endpoint.name, telemetry=telemetry, allow_pickle=allow_pickle)]


def decide_routes(state: resources.Endpoint | None, command: service.SetRoutesRequest) -> list[Message]:
    """Shares set by hand. Raises FailedPrecondition during a rollout, and for a blocked version."""
    endpoint = _existing(state, command.name)
    if endpoint.HasField("rollout"):
        raise FailedPrecondition(f"{endpoint.rollout.version} is being rolled out: abort that first", field="name")
    for index, each in enumerate(command.routes):
        _require_servable(endpoint, each.version, field=f"routes[{index}].version")
    wanted = [each for each in command.routes if each.weight]
    return _changed(endpoint, wanted, cause="manual")


def decide_rollout(
    state: resources.Endpoint | None, command: service.StartRolloutRequest, context: CommandContext
) -> list[Message]:
    """A rollout at its first step.

    Raises:
        FailedPrecondition: One is under way, the version is blocked, or it answers everything already.
    """
    endpoint = _existing(state, command.endpoint, field="endpoint")
    if endpoint.HasField("rollout"):
        raise FailedPrecondition(
            f"{endpoint.rollout.version} is being rolled out", field="endpoint", reason="ROLLOUT_UNDER_WAY"
        )
    _require_servable(endpoint, command.version, field="version")
    baseline = max(endpoint.routes, key=lambda each: each.weight, default=None)
    if baseline is None:
        raise FailedPrecondition(
            "the endpoint answers with no version yet: promote the first one to its alias", field="endpoint"
        )
    if baseline.version == command.version:
        raise FailedPrecondition(f"{command.version} answers already", field="version")
    steps = list(command.steps) or list(DEFAULT_STEPS)
    rollout = resources.Rollout(
        id=str(context.command_id),
        version=command.version,
        baseline=baseline.version,
        steps=steps,
        step_rows=command.step_rows or DEFAULT_STEP_ROWS,
        step_s=command.step_s,
        maximum_error_rate=command.maximum_error_rate or DEFAULT_ERROR_RATE,
        start_time=_timestamp(context.now),
        step_time=_timestamp(context.now),
        step_timeout_s=command.step_timeout_s or DEFAULT_STEP_TIMEOUT_S,
    )
    mixed = routes.canary(endpoint.routes, command.version, steps[0])
    return [
        events.RolloutStarted(endpoint=endpoint.name, rollout=rollout),
        events.RoutesChanged(endpoint=endpoint.name, routes=mixed, cause="rollout"),
    ]


def decide_advance(
    state: resources.Endpoint | None, *, rollout: str, step: int, rows: int, failures: int, context: CommandContext
) -> list[Message]:
    """The step after ``step``; nothing when the rollout is not there (any more)."""
    endpoint = _at_step(state, rollout, step)
    if endpoint is None or step + 1 >= len(endpoint.rollout.steps):
        return []
    weight = endpoint.rollout.steps[step + 1]
    before = endpoint.previous[-1].routes if endpoint.previous else []
    return [
        events.RolloutStepAdvanced(
            endpoint=endpoint.name,
            rollout=rollout,
            step=step + 1,
            weight=weight,
            rows=rows,
            failures=failures,
            time=_timestamp(context.now),
        ),
        events.RoutesChanged(
            endpoint=endpoint.name, routes=routes.canary(before, endpoint.rollout.version, weight), cause="rollout"
        ),
    ]


def decide_abort(state: resources.Endpoint | None, *, endpoint: str, reason: str, rollout: str = "") -> list[Message]:
    """A rollout is given up. With an id: nothing when that one is not under way; without: raises FailedPrecondition."""
    known = _existing(state, endpoint, field="endpoint")
    if not known.HasField("rollout") or rollout not in ("", known.rollout.id):
        if rollout:
            return []
        raise FailedPrecondition("no rollout is under way", field="endpoint", reason="NO_ROLLOUT")
    aborted = _aborted(known, reason)
    return [aborted, events.RoutesChanged(endpoint=endpoint, routes=evolve(known, aborted).routes, cause="rollout")]


def decide_alias(
    state: resources.Endpoint | None, *, version: str, revision: int, model: str, alias: str
) -> list[Message]:
    """Follows the alias: its version answers everything. Older revisions, and other aliases, change nothing.

    A rollout of this version is completed by it; a rollout of another one is given up. A blocked version is not routed
    to: the revision is noted, and the routes stay.
    """
    if state is None or (state.model, state.alias) != (model, alias) or revision <= state.alias_revision:
        return []
    ended: list[Message] = []
    cause = "alias"
    blocked = blocked_versions(state)
    if state.HasField("rollout"):
        if state.rollout.version == version and version not in blocked:
            cause = "rollout"
            done = events.RolloutCompleted(
                endpoint=state.name, rollout=state.rollout.id, version=version, alias_revision=revision
            )
            ended.append(done)
        else:
            ended.append(_aborted(state, f"{alias} moved to {version}"))
    after = evolve(state, ended[0]) if ended else state
    wanted = list(after.routes) if version in blocked else routes.whole(version)
    changed = events.RoutesChanged(endpoint=state.name, routes=wanted, cause=cause, alias_revision=revision)
    return [*ended, changed]


def decide_block(
    state: resources.Endpoint | None, *, endpoint: str, version: str, reason: str, context: CommandContext
) -> list[Message]:
    """A version stops at once, the last good routes answer; nothing when it is blocked already.

    A rollout in which it has no part goes on as it was.
    """
    known = _existing(state, endpoint, field="endpoint")
    _require_of_model(known, version, field="version")
    if version in blocked_versions(known):
        return []
    part = {each.version for each in (*known.routes, *(known.previous[-1].routes if known.previous else ()))}
    rolling = known.HasField("rollout")
    undisturbed = rolling and version not in part
    good = list(known.routes) if undisturbed else routes.last_good(known, {*blocked_versions(known), version})
    blocked = events.VersionBlocked(
        endpoint=known.name, version=version, reason=reason, routes=good, time=_timestamp(context.now)
    )
    aborted = [_aborted(known, f"{version} was blocked: {reason}")] if rolling and not undisturbed else []
    return [*aborted, blocked]


def decide_unblock(state: resources.Endpoint | None, *, endpoint: str, version: str, reason: str) -> list[Message]:
    """A version may answer again; the routes stay as they are. Nothing when it is not blocked."""
    known = _existing(state, endpoint, field="endpoint")
    if version not in blocked_versions(known):
        return []
    return [events.VersionUnblocked(endpoint=known.name, version=version, reason=reason)]


def evolve(state: resources.Endpoint | None, event: Message) -> resources.Endpoint:
    """The state after ``event``; the given state is left as it was."""
    endpoint = resources.Endpoint()
    if state is not None:
        endpoint.CopyFrom(state)
    match event:
        case events.EndpointCreated():
            endpoint.CopyFrom(event.endpoint)
        case events.EndpointConfigured():
            endpoint.telemetry, endpoint.allow_pickle = event.telemetry, event.allow_pickle
        case events.RoutesChanged():
            if event.cause != "rollout":
                _remember(endpoint, event.routes)
            _set_routes(endpoint, event.routes)
            endpoint.alias_revision = max(endpoint.alias_revision, event.alias_revision)
        case events.RolloutStarted():
            _remember(endpoint, [])
            endpoint.rollout.CopyFrom(event.rollout)
        case events.RolloutStepAdvanced():
            endpoint.rollout.step = event.step
            endpoint.rollout.step_time.CopyFrom(event.time)
        case events.RolloutCompleted():
            endpoint.ClearField("rollout")
            endpoint.alias_revision = max(endpoint.alias_revision, event.alias_revision)
        case events.RolloutAborted():
            endpoint.ClearField("rollout")
            _set_routes(endpoint, endpoint.previous.pop().routes)
        case events.VersionBlocked():
            endpoint.blocked.add(version=event.version, reason=event.reason, time=event.time)
            _set_routes(endpoint, event.routes)
        case events.VersionUnblocked():
            kept = [each for each in endpoint.blocked if each.version != event.version]
            endpoint.ClearField("blocked")
            endpoint.blocked.extend(kept)
        case _:
            pass
    endpoint.revision += 1
    return endpoint


def blocked_versions(endpoint: resources.Endpoint) -> set[str]:
    """Versions that must not answer."""
    return {each.version for each in endpoint.blocked}


def _existing(state: resources.Endpoint | None, name: str, *, field: str = "name") -> resources.Endpoint:
    if state is None:
        raise NotFound("endpoint", name, field=field)
    return state


def _at_step(state: resources.Endpoint | None, rollout: str, step: int) -> resources.Endpoint | None:
    if state is None or not state.HasField("rollout"):
        return None
    return state if (state.rollout.id, state.rollout.step) == (rollout, step) else None


def _require_of_model(endpoint: resources.Endpoint, version: str, *, field: str) -> None:
    if not version.startswith(f"{endpoint.model}/versions/"):
        raise InvalidArgument(f"this endpoint serves {endpoint.model}", field=field)


def _require_servable(endpoint: resources.Endpoint, version: str, *, field: str) -> None:
    _require_of_model(endpoint, version, field=field)
    if version in blocked_versions(endpoint):
        raise FailedPrecondition(f"{version} is blocked: unblock it first", field=field, reason="VERSION_BLOCKED")


def _changed(endpoint: resources.Endpoint, wanted: Sequence[resources.Route], *, cause: str) -> list[Message]:
    if list(endpoint.routes) == list(wanted):
        return []
    return [events.RoutesChanged(endpoint=endpoint.name, routes=wanted, cause=cause)]


def _aborted(endpoint: resources.Endpoint, reason: str) -> events.RolloutAborted:
    rollout = endpoint.rollout
    return events.RolloutAborted(
        endpoint=endpoint.name, rollout=rollout.id, version=rollout.version, reason=reason[:2000]
    )


def _set_routes(endpoint: resources.Endpoint, wanted: Sequence[resources.Route]) -> None:
    kept = list(wanted)
    endpoint.ClearField("routes")
    endpoint.routes.extend(kept)


def _remember(endpoint: resources.Endpoint, wanted: Sequence[resources.Route]) -> None:
    """Keeps the routes in force, unless there are none or they stay."""
    if endpoint.routes and list(endpoint.routes) != list(wanted):
        endpoint.previous.add(routes=endpoint.routes)
        del endpoint.previous[:-PREVIOUS_KEPT]


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
