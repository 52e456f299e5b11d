"""What the registry does when others' events arrive."""

import structlog

from headrace.api.monitor.v1.events_pb2 import RollbackRequested
from headrace.api.serving.v1.events_pb2 import EndpointCreated, RoutesChanged, VersionBlocked
from headrace_kit.consumer import ReceivedEvent
from headrace_kit.context import CommandContext
from headrace_kit.errors import NotFound
from headrace_kit.eventstore import EventStore
from headrace_kit.rpc.call import Clock, utc_now
from headrace_registry import references, rollbacks
from headrace_registry.store import MODEL

_log = structlog.get_logger(__name__)


class RollbackHandler:
    """Answers ``RollbackRequested`` by VersionRolledBack or RollbackRefused, once an event."""

    def __init__(self, store: EventStore, *, now: Clock = utc_now) -> None:
        self._store, self._now = store, now

    async def handle(self, event: ReceivedEvent) -> None:
        """Moves the alias back, or records why not; a model that is not here concerns another platform."""
        request = event.message
        if not isinstance(request, RollbackRequested):
            return
        context = CommandContext.caused_by(event, "registry.rollback", self._now())
        try:
            await self._store.execute(
                MODEL,
                request.model,
                context=context,
                request=request,
                decide=lambda state: rollbacks.decide_requested(state, request, context),
                respond=lambda model: model,
            )
        except NotFound:
            _log.warning("rollback_of_unknown_model", model=request.model, event_id=str(event.id))


class RoutesHandler:
    """Keeps, with each model, which endpoints route to its versions, so that none of those is archived or deleted."""

    def __init__(self, store: EventStore, *, now: Clock = utc_now) -> None:
        self._store, self._now = store, now

    async def handle(self, event: ReceivedEvent) -> None:
        """One command on the model an endpoint serves; a model that is not here concerns another platform."""
        told = event.message
        match told:
            case EndpointCreated():
                endpoint, model, routes = told.endpoint.name, told.endpoint.model, told.endpoint.routes
            case VersionBlocked():
                endpoint, model, routes = told.endpoint, _model_of(told.version), told.routes
            case RoutesChanged() if told.routes:
                endpoint, model, routes = told.endpoint, _model_of(told.routes[0].version), told.routes
            case _:
                return
        named = [each.version.rpartition("/versions/") for each in routes]
        versions = [int(number) for of, _, number in named if of == model and number.isdecimal()]
        context = CommandContext.caused_by(event, "registry.routes", self._now())
        try:
            await self._store.execute(
                MODEL,
                model,
                context=context,
                request=told,
                decide=lambda state: references.decide_noted(state, model, endpoint=endpoint, versions=versions),
                respond=lambda found: found,
            )
        except NotFound:
            _log.warning("routes_to_unknown_model", model=model, endpoint=endpoint, event_id=str(event.id))


def _model_of(version: str) -> str:
    return version.rpartition("/versions/")[0]
