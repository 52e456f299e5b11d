"""What aiokafka's clients do when they are stopped stays with them."""

import asyncio
from contextlib import suppress

import pytest
from aiokafka.errors import KafkaConnectionError

from headrace_kit.log.kafka import KafkaConsumer, _Watcher


class Client:
    """Stops as aiokafka 0.14 does while a fetch waits for a broker that is away."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.connected = True
        self._client = self

    async def stop(self) -> None:
        if self.error is not None:
            raise self.error
        fetch = asyncio.create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        fetch.cancel()
        await fetch
        await self.close()

    async def close(self) -> None:
        self.connected = False


class Stuck:
    """Never stops."""

    async def stop(self) -> None:
        await asyncio.Event().wait()


async def test_a_cancelled_fetch_neither_ends_who_closes_a_consumer_nor_leaves_it_connected() -> None:
    client = Client()

    await KafkaConsumer(client, _Watcher()).close()

    assert not client.connected


async def test_a_broker_that_is_gone_does_not_keep_a_consumer_from_closing() -> None:
    await KafkaConsumer(Client(KafkaConnectionError("gone")), _Watcher()).close()


async def test_an_error_of_another_kind_is_told() -> None:
    with pytest.raises(ZeroDivisionError):
        await KafkaConsumer(Client(ZeroDivisionError()), _Watcher()).close()


async def test_who_is_cancelled_while_closing_ends() -> None:
    closing = asyncio.create_task(KafkaConsumer(Stuck(), _Watcher()).close())
    await asyncio.sleep(0)
    closing.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.wait_for(closing, 5)
    assert closing.cancelled()
