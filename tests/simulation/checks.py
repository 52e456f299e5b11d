"""What must hold when everything has arrived, whatever happened on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from uuid import UUID

from google.protobuf.message import Message

from headrace.api.monitor.v1.events_pb2 import RollbackRequested
from headrace.api.registry.v1.events_pb2 import RollbackRefused, VersionPromoted, VersionRolledBack
from headrace.api.serving.v1.events_pb2 import EndpointCreated, RoutesChanged, VersionBlocked
from headrace.api.serving.v1.resources_pb2 import Endpoint
from headrace_kit.eventstore import EventMeta
from headrace_kit.eventtypes import EventTypes
from headrace_kit.leaf import leaf_bytes, leaf_hash
from headrace_serving import domain as serving
from tests.simulation.disk import Row
from tests.simulation.world import PROJECTION, TYPES, World


def findings(world: World) -> Iterator[str]:
    """Every broken promise."""
    for name in TYPES:
        yield from _log_is_whole(world, name)
        yield from _nothing_parked(world, name)
    yield from _commands_are_carried_out_once(world)
    yield from _projection_folds_each_event_once(world)
    yield from _alias_never_goes_back(world)
    yield from _routes_never_lead_to_a_blocked_version(world)
    yield from _requests_are_answered_once(world)
    yield from _no_effect_precedes_its_cause(world)


def _log_is_whole(world: World, name: str) -> Iterator[str]:
    tables = world.servers[name].tables
    log = tables.log
    if [row["position"] for row in log] != list(range(1, len(log) + 1)):
        yield f"positions of {name} are not dense: {[row['position'] for row in log]}"
    if sorted(row["local_id"] for row in log) != sorted(row["local_id"] for row in tables.events):
        yield f"the log of {name} has not each committed event once: {len(log)} of {len(tables.events)}"
    versions: dict[str, list[int]] = {}
    for row in log:
        versions.setdefault(row["stream_id"], []).append(row["version"])
    for stream, found in versions.items():
        if found != list(range(1, len(found) + 1)):
            yield f"versions of {stream} are not dense: {found}"
    times = [row["sequenced_at"] for row in log]
    if any(later <= earlier for earlier, later in pairwise(times)):
        yield f"time in the log of {name} does not rise"
    for row in log:
        if row["leaf"] != _leaf(name, row):
            yield f"the leaf at {row['position']} of {name} is not that of its event"


def _leaf(name: str, row: Row) -> bytes:
    columns = (
        "position event_id stream_id version type occurred_at recorded_at sequenced_at hlc meta data".split()  # noqa: SIM905
    )
    values: dict[str, Any] = {column: row[column] for column in columns}
    return leaf_hash(leaf_bytes(source=f"headrace/{name}", **values))


def _nothing_parked(world: World, name: str) -> Iterator[str]:
    for consumer, _, stream in world.servers[name].tables.parked:
        yield f"{consumer} parked {stream}"


def _commands_are_carried_out_once(world: World) -> Iterator[str]:
    written: dict[UUID, list[Row]] = {}
    for name in TYPES:
        for row in world.servers[name].tables.log:
            written.setdefault(row["command_id"], []).append(row)
    for wish in world.wishes:
        rows = written.get(wish.id, [])
        if wish.outcome == "unknown":
            yield f"command {wish.id} was never answered"
        if wish.outcome == "acknowledged" and wish.events and not rows:
            yield f"command {wish.id} was acknowledged and is not in the log"
        if wish.outcome == "refused" and rows:
            yield f"command {wish.id} was refused and is in the log"
    for command, rows in written.items():
        ids = [row["event_id"] for row in rows]
        versions = [row["version"] for row in rows]
        whole = list(range(versions[0], versions[0] + len(rows)))
        if len(set(ids)) != len(ids) or versions != whole or len({row["stream_id"] for row in rows}) != 1:
            yield f"command {command} was carried out more than once"


def _projection_folds_each_event_once(world: World) -> Iterator[str]:
    effects = Counter(event for name, event in world.servers["serving"].tables.effects if name == PROJECTION)
    wanted = Counter(row["event_id"] for row in world.servers["registry"].tables.log)
    for event in wanted.keys() | effects.keys():
        if wanted[event] != effects[event]:
            yield f"event {event} had {effects[event]} effects"


def _alias_never_goes_back(world: World) -> Iterator[str]:
    revision, bad = 0, set[str]()
    for _, event in _events(world, "registry"):
        if isinstance(event, VersionPromoted | VersionRolledBack):
            if event.promotion.revision != revision + 1:
                yield f"the alias went from revision {revision} to {event.promotion.revision}"
            revision = event.promotion.revision
        if isinstance(event, VersionRolledBack):
            bad.add(event.bad_version)
            if event.version in bad:
                yield f"a rollback went to {event.version}, which was rolled back from"
    followed = 0
    for _, event in _events(world, "serving"):
        if isinstance(event, RoutesChanged) and event.alias_revision:
            if event.alias_revision <= followed:
                yield f"serving went from revision {followed} of the alias to {event.alias_revision}"
            followed = event.alias_revision
    if followed != revision:
        yield f"serving follows revision {followed}, the alias is at {revision}"


def _routes_never_lead_to_a_blocked_version(world: World) -> Iterator[str]:
    state: Endpoint | None = None
    for row, event in _events(world, "serving"):
        if not isinstance(event, EndpointCreated) and state is None:
            yield "an endpoint begins without its creation"
            return
        before = serving.blocked_versions(state) if state else set[str]()
        state = serving.evolve(state, event)
        changed = list(state.routes) if isinstance(event, RoutesChanged | VersionBlocked) else []
        for route in changed:
            if route.version in before | serving.blocked_versions(state) and route.weight:
                yield f"version {row['version']} of the endpoint routes to {route.version}, which is blocked"


def _requests_are_answered_once(world: World) -> Iterator[str]:
    answers = Counter(
        EventMeta.decode(row["meta"]).causation_id
        for row, event in _events(world, "registry")
        if isinstance(event, VersionRolledBack | RollbackRefused)
    )
    blocked = {event.version for _, event in _events(world, "serving") if isinstance(event, VersionBlocked)}
    requested = {row["event_id"]: event for row, event in _events(world, "monitor") if type(event) is RollbackRequested}
    for request, event in requested.items():
        if answers[request] != 1:
            yield f"request {request} was answered {answers[request]} times"
        if event.bad_version not in blocked:
            yield f"{event.bad_version} was to be rolled back and was never blocked"
    for request in answers.keys() - requested.keys():
        yield f"an answer to {request}, which nobody asked"


def _no_effect_precedes_its_cause(world: World) -> Iterator[str]:
    rows = {row["event_id"]: row for name in TYPES for row in world.servers[name].tables.log}
    for row in rows.values():
        cause = EventMeta.decode(row["meta"]).causation_id
        if cause is not None and (cause not in rows or rows[cause]["hlc"] >= row["hlc"]):
            yield f"event {row['event_id']} is not after its cause {cause}"


def _events(world: World, name: str) -> Iterator[tuple[Row, Message]]:
    types = EventTypes(*TYPES[name])
    for row in world.servers[name].tables.log:
        message = types.decode(row["type"], row["data"])
        if message is not None:
            yield row, message
