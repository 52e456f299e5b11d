"""Events of the platform for asyncio: the same subscription, its waiting done in threads of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from headrace.events.event import Event
from headrace.events.subscription import Delivery, Subscription


@dataclass(frozen=True, slots=True)
class AsyncDelivery:
    """An event handed out; as ``Delivery``, awaited."""

    event: Event
    _acknowledge: Callable[[], Awaitable[None]] = field(repr=False)

    async def ack(self) -> None:
        """As ``Delivery.ack``."""
        await self._acknowledge()

    async def __aenter__(self) -> Event:
        return self.event

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.ack()


class AsyncSubscription:
    """An endless asynchronous iterator of deliveries; see ``headrace.events.subscribe_async``, which makes it.

    For one loop and one taker at a time; ``ack`` from any task. A take that was cancelled loses nothing: the next one
    gets the event.
    """

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._taking: asyncio.Future[Delivery | None] | None = None
        # One thread waits for events, one saves what was acknowledged.
        self._takers = ThreadPoolExecutor(1, thread_name_prefix="events-take")
        self._savers = ThreadPoolExecutor(1, thread_name_prefix="events-ack")

    async def run(self, handler: Callable[[Event], Awaitable[object]]) -> None:
        """Awaits a handler with each event, and acknowledges the event when it is done; ends when closed."""
        async for delivery in self:
            async with delivery as event:
                await handler(event)

    @property
    def positions(self) -> dict[str, int]:
        """As ``Subscription.positions``."""
        return self._subscription.positions

    async def close(self) -> None:
        """As ``Subscription.close``."""
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._subscription.close)
        finally:
            self._takers.shutdown(wait=False)
            self._savers.shutdown(wait=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AsyncDelivery:
        if self._taking is None:
            self._taking = asyncio.get_running_loop().run_in_executor(self._takers, self._subscription.take)
        await asyncio.wait([self._taking])  # unlike awaiting it, leaves it alone when cancelled
        taken, self._taking = self._taking, None
        delivery = taken.result()
        if delivery is None:
            raise StopAsyncIteration
        return AsyncDelivery(delivery.event, lambda: self._acknowledged(delivery))

    async def __aenter__(self) -> Self:
        await asyncio.get_running_loop().run_in_executor(self._takers, self._subscription.__enter__)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _acknowledged(self, delivery: Delivery) -> None:
        await asyncio.get_running_loop().run_in_executor(self._savers, delivery.ack)
