"""Commands on endpoints: decided on the stream, then brought into force in this process."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
from google.protobuf.message import Message

from headrace.api.serving.v1.resources_pb2 import Endpoint
from headrace_kit.context import CommandContext
from headrace_kit.errors import NotFound
from headrace_kit.eventstore import EventStore
from headrace_serving.router import Router
from headrace_serving.store import ENDPOINT

_log = structlog.get_logger(__name__)
R = TypeVar("R", bound=Message)
Decide = Callable[[Endpoint | None], Sequence[Message]]


class Endpoints:
    """The write side of endpoints.

    Args:
        store: The endpoints' streams.
        router: Brings routes into force in this process; other processes follow the log.
    """

    def __init__(self, store: EventStore, router: Router) -> None:
        self._store, self._router = store, router

    async def execute(
        self,
        name: str,
        *,
        context: CommandContext,
        request: Message,
        decide: Decide,
        respond: Callable[[Endpoint], R],
    ) -> R:
        """Carries out one command once (see ``EventStore.execute``); its routes are in force here when it returns."""
        response = await self._store.execute(
            ENDPOINT, name, context=context, request=request, decide=decide, respond=respond
        )
        await self.refresh(name)
        return response

    async def refresh(self, name: str) -> None:
        """Brings the newest routes of an endpoint into force here."""
        loaded = await self._store.load(ENDPOINT, name)
        if loaded is not None and loaded[0].revision > self._router.revision(name):
            await self._router.apply(loaded[0])

    async def get(self, name: str, *, field: str = "name") -> Endpoint:
        """An endpoint. Raises NotFound."""
        loaded = await self._store.load(ENDPOINT, name)
        if loaded is None:
            raise NotFound("endpoint", name, field=field)
        return loaded[0]
