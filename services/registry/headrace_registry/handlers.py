"""What the registry does when others' events arrive."""

import structlog

from headrace.api.monitor.v1.events_pb2 import RollbackRequested
from headrace_kit.consumer import ReceivedEvent
from headrace_kit.context import CommandContext
from headrace_kit.errors import NotFound
from headrace_kit.eventstore import EventStore
from headrace_kit.rpc.call import Clock, utc_now
from headrace_registry import rollbacks
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
