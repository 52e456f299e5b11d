"""Keeps this process at the newest state of every endpoint, whoever wrote it, and the endpoints at their aliases."""

import asyncio
from datetime import UTC, datetime
from typing import Final
from uuid import NAMESPACE_URL, uuid5

import structlog

from headrace.api.registry.v1.resources_pb2 import Alias
from headrace.api.serving.v1.resources_pb2 import Endpoint
from headrace_kit.context import CommandContext
from headrace_kit.errors import KitError
from headrace_kit.eventstore import EventStore
from headrace_serving import domain
from headrace_serving.endpoints import Endpoints
from headrace_serving.registry import Registry
from headrace_serving.router import Router
from headrace_serving.store import EndpointStore

_log = structlog.get_logger(__name__)

POLL_S: Final = 0.2
RETRY_S: Final = 3.0
RECONCILE_S: Final = 15.0
_PAGE: Final = 500


class Follower:
    """Tails serving's own log (no consumer group: each process reads all of it)."""

    def __init__(self, store: EventStore, endpoints: EndpointStore, commands: Endpoints, router: Router) -> None:
        self._store, self._endpoints, self._commands, self._router = store, endpoints, commands, router
        self._position = 0

    async def load_all(self) -> None:
        """Brings every endpoint into force; what can not be loaded now is tried again later."""
        self._position = await self._store.head()
        await asyncio.gather(*(self._router.apply(each) for each in await self._endpoints.all()))

    async def run(self) -> None:
        """Follows until cancelled, through outages of the database."""
        loop = asyncio.get_running_loop()
        retry_at = loop.time() + RETRY_S
        while True:
            try:
                followed = await self._follow()
                if loop.time() >= retry_at:
                    retry_at = loop.time() + RETRY_S
                    await self._router.retry()
            except KitError as error:
                _log.warning("follower_waits", cause=error.message)
                followed = 0
            if followed < _PAGE:
                await asyncio.sleep(POLL_S)

    async def _follow(self) -> int:
        entries = await self._store.read_log(self._position + 1, _PAGE)
        for name in dict.fromkeys(each.event.stream_id for each in entries):
            await self._commands.refresh(name)
        if entries:
            self._position = entries[-1].position
        return len(entries)


class Reconciler:
    """Asks the registry for the aliases now and then: an event that came before its endpoint existed is not missed."""

    def __init__(self, endpoints: EndpointStore, commands: Endpoints, registry: Registry) -> None:
        self._endpoints, self._commands, self._registry = endpoints, commands, registry

    async def run(self) -> None:
        """Reconciles every ``RECONCILE_S`` until cancelled."""
        while True:
            try:
                for endpoint in await self._endpoints.all():
                    await self.reconcile(endpoint)
            except KitError as error:
                _log.info("reconciler_waits", cause=error.message)
            await asyncio.sleep(RECONCILE_S)

    async def reconcile(self, endpoint: Endpoint) -> None:
        """Follows the alias of one endpoint when its revision is newer than the one seen. Raises KitError."""
        alias = await self._registry.alias(endpoint.model, endpoint.alias)
        if alias is None or alias.revision <= endpoint.alias_revision:
            return
        identity = uuid5(NAMESPACE_URL, f"headrace:serving.reconcile:{endpoint.name}:{alias.revision}")
        version = f"{endpoint.model}/versions/{alias.version}"
        moved = Alias(alias=alias.alias, version=alias.version, revision=alias.revision)
        await self._commands.execute(
            endpoint.name,
            context=CommandContext(command_id=identity, actor="services/serving", now=datetime.now(UTC)),
            request=moved,
            decide=lambda state: domain.decide_alias(
                state, version=version, revision=alias.revision, model=endpoint.model, alias=alias.alias
            ),
            respond=lambda state: state,
        )
