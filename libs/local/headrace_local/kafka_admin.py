"""The questions the local stack asks Kafka. aiokafka is untyped: this module is its border."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code

from headrace_local.topics import Topic

_REQUEST_TIMEOUT_MS = 10_000
_TOPIC_ALREADY_EXISTS = 36


async def answers(bootstrap: str, *, within_s: float = 5.0) -> bool:
    """Whether an admin client can describe the cluster, and it has a controller."""
    if not await _listens(bootstrap):  # quietly: the client logs every refused connection as an error
        return False
    try:
        async with asyncio.timeout(within_s), _admin(bootstrap) as admin:
            described = await admin.describe_cluster()
    except (KafkaError, TimeoutError, OSError):
        return False
    return bool(described["brokers"]) and described["controller_id"] >= 0


async def create_topics(
    bootstrap: str, topics: Iterable[Topic], *, replication: int = 1, within_s: float = 30.0
) -> list[str]:
    """Create the topics that do not exist yet and return their names; existing ones stay as they are.

    Raises:
        KafkaError: the broker refused for another reason than that a topic exists.
        TimeoutError: no answer in ``within_s`` seconds.
    """
    async with asyncio.timeout(within_s), _admin(bootstrap) as admin:
        present = set(await admin.list_topics())
        absent = [topic for topic in topics if topic.name not in present]
        if not absent:
            return []
        answer = await admin.create_topics(
            [
                NewTopic(topic.name, topic.partitions, replication, topic_configs=dict(topic.settings))
                for topic in absent
            ]
        )
        for name, code, *details in answer.topic_errors:
            if code not in (0, _TOPIC_ALREADY_EXISTS):
                raise for_code(code)(f"topic {name}: {details[0] if details else 'refused'}")
    return [topic.name for topic in absent]


@contextlib.asynccontextmanager
async def _admin(bootstrap: str) -> AsyncGenerator[Any]:  # Any: aiokafka has no types
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def _listens(bootstrap: str) -> bool:
    host, _, port = bootstrap.partition(",")[0].rpartition(":")
    try:
        async with asyncio.timeout(2):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
