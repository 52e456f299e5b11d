"""What serving does when others' events arrive."""

import structlog

from headrace.api.monitor.v1.events_pb2 import RollbackRequested
from headrace.api.registry.v1.events_pb2 import VersionPromoted, VersionRolledBack
from headrace_kit.consumer import ReceivedEvent
from headrace_kit.context import CommandContext
from headrace_kit.errors import InvalidArgument, NotFound
from headrace_kit.rpc.call import Clock, utc_now
from headrace_serving import domain
from headrace_serving.endpoints import Endpoints
from headrace_serving.store import EndpointStore

_log = structlog.get_logger(__name__)


class AliasHandler:
    """Follows the registry: when an alias moved, its endpoints answer with the version it points to."""

    def __init__(self, endpoints: Endpoints, store: EndpointStore, *, now: Clock = utc_now) -> None:
        self._endpoints, self._store, self._now = endpoints, store, now

    async def handle(self, event: ReceivedEvent) -> None:
        """One command an endpoint that follows the alias; older revisions change nothing."""
        moved = event.message
        if not isinstance(moved, VersionPromoted | VersionRolledBack):
            return
        model = moved.version.rpartition("/versions/")[0]
        alias, revision = moved.promotion.alias, moved.promotion.revision
        for name in await self._store.following(model, alias):
            context = CommandContext.caused_by(event, f"serving.follow_alias.{name}", self._now())
            await self._endpoints.execute(
                name,
                context=context,
                request=moved,
                decide=lambda state: domain.decide_alias(
                    state, version=moved.version, revision=revision, model=model, alias=alias
                ),
                respond=lambda endpoint: endpoint,
            )


class RollbackHandler:
    """The fast path of a rollback: the bad version stops here at once; the registry moves the alias on its own."""

    def __init__(self, endpoints: Endpoints, *, now: Clock = utc_now) -> None:
        self._endpoints, self._now = endpoints, now

    async def handle(self, event: ReceivedEvent) -> None:
        """Blocks the version on its endpoint; what is not here concerns another platform."""
        request = event.message
        if not isinstance(request, RollbackRequested):
            return
        name = f"projects/{request.project}/endpoints/{request.endpoint}"
        context = CommandContext.caused_by(event, "serving.block_version", self._now())
        try:
            await self._endpoints.execute(
                name,
                context=context,
                request=request,
                decide=lambda state: domain.decide_block(
                    state, endpoint=name, version=request.bad_version, reason=request.reason, context=context
                ),
                respond=lambda endpoint: endpoint,
            )
        except (NotFound, InvalidArgument) as error:
            _log.warning("rollback_not_applicable", endpoint=name, version=request.bad_version, cause=error.message)
