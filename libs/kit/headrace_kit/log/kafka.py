"""Kafka by aiokafka, wrapped once.

The consumer's task is never trusted to be alive (aiokafka issues 1154, 847, 718): see ``consumer.Consumer``'s watchdog.
"""
# aiokafka ships no types: inside this module Any is what it gives.
# ruff: noqa: ANN401

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, NoError, TopicAlreadyExistsError, for_code
from aiokafka.partitioner import murmur2

from headrace_kit.log.records import LogRecord, LogUnavailable, OutgoingRecord, TopicPartition
from headrace_kit.log.topics import TopicSpec

MAX_BATCH_BYTES = 900_000
"""Size of a batch; the broker refuses 1 MiB and more."""
REQUEST_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach the brokers.

    Attributes:
        bootstrap: ``host:port,host:port``.
        security_protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
        sasl_mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
        username: SASL user.
        password: SASL password.
        ca_file: Certificates of the brokers' authority; the system's when empty.
    """

    bootstrap: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None

    def client_arguments(self) -> dict[str, Any]:  # Any: keyword arguments of untyped clients
        """Arguments every aiokafka client takes."""
        return {
            "bootstrap_servers": self.bootstrap,
            **self.security_arguments(),
            "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000),
            "metadata_max_age_ms": 10_000,  # a topic made after the client is found soon
        }

    def security_arguments(self) -> dict[str, Any]:  # Any: as above
        """Those of them that are about SASL and TLS, for clients with settings of their own."""
        tls = "SSL" in self.security_protocol
        return {
            "security_protocol": self.security_protocol,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.username,
            "sasl_plain_password": self.password,
            "ssl_context": ssl.create_default_context(cafile=self.ca_file) if tls else None,
        }


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (KafkaError, OSError) as error:
        raise LogUnavailable(f"Kafka: {error or type(error).__name__}") from error


@lru_cache(maxsize=65_536)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key: murmur2, as every Kafka client's default."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


async def _create(admin: Any, topic: TopicSpec, *, replicas: int) -> None:
    configuration = {"retention.ms": str(topic.retention_ms)}
    if topic.log_append_time:
        configuration["message.timestamp.type"] = "LogAppendTime"
    new = NewTopic(
        topic.name, num_partitions=topic.partitions, replication_factor=replicas, topic_configs=configuration
    )
    response = await admin.create_topics([new])
    for _, code, *message in response.topic_errors:
        if code not in (NoError.errno, TopicAlreadyExistsError.errno):
            raise for_code(code)(*message)


class KafkaProducer:
    """``LogProducer`` on Kafka: idempotent, acks=all. Make it by ``open``."""

    def __init__(self, raw: Any) -> None:  # Any: an untyped aiokafka producer
        self._raw = raw

    @staticmethod
    async def open(settings: KafkaSettings) -> KafkaProducer:
        """Connects.

        Raises:
            LogUnavailable: the broker cannot be reached.
        """
        raw = aiokafka.AIOKafkaProducer(
            **settings.client_arguments(), acks="all", enable_idempotence=True, max_batch_size=MAX_BATCH_BYTES
        )
        try:
            with _translated():
                await asyncio.wait_for(raw.start(), REQUEST_TIMEOUT_S)
        except BaseException:
            await _stop(raw)
            raise
        return KafkaProducer(raw)

    async def partitions(self, topic: str) -> int:
        """As ``LogProducer.partitions``."""
        with _translated():
            return len(await asyncio.wait_for(self._raw.partitions_for(topic), REQUEST_TIMEOUT_S))

    async def append(self, topic: str, records: Mapping[int, Sequence[OutgoingRecord]]) -> Mapping[int, int]:
        """As ``LogProducer.append``."""
        sent: dict[int, int] = {}
        with _translated():
            waiting: list[asyncio.Future[Any]] = []  # Any: what aiokafka says of an acknowledged batch
            for partition, members in records.items():
                batch, sent[partition] = self._batch(members)
                if sent[partition]:
                    waiting.append(await self._raw.send_batch(batch, topic, partition=partition))
            await asyncio.wait_for(asyncio.gather(*waiting), 2 * REQUEST_TIMEOUT_S)
        return sent

    def _batch(self, records: Sequence[OutgoingRecord]) -> tuple[Any, int]:  # Any: an untyped batch
        batch = self._raw.create_batch()
        append = batch.append
        for count, (key, value, headers) in enumerate(records):
            if append(timestamp=None, key=key, value=value, headers=list(headers)) is None:
                return batch, count
        return batch, len(records)

    async def close(self) -> None:
        """As ``LogProducer.close``."""
        await _stop(self._raw)


class KafkaConsumer:
    """``LogConsumer`` on Kafka. Make it by ``open``; offsets are never committed to Kafka."""

    def __init__(self, raw: Any, watcher: _Watcher) -> None:  # Any: an untyped aiokafka consumer
        self._raw = raw
        self._watcher = watcher

    @staticmethod
    async def open(settings: KafkaSettings, topics: Collection[str], *, group: str) -> KafkaConsumer:
        """Connects and joins the group.

        Raises:
            LogUnavailable: the broker cannot be reached.
        """
        raw = aiokafka.AIOKafkaConsumer(
            **settings.client_arguments(),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # what is read before the first seek is dropped by its position
            session_timeout_ms=10_000,
            heartbeat_interval_ms=1_000,
        )
        watcher = _Watcher()
        try:
            with _translated():
                raw.subscribe(topics=list(topics), listener=watcher)
                await asyncio.wait_for(raw.start(), 2 * REQUEST_TIMEOUT_S)
        except BaseException:
            await _stop(raw)
            raise
        return KafkaConsumer(raw, watcher)

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """As ``LogConsumer.assignment``."""
        return frozenset(TopicPartition(each.topic, each.partition) for each in self._raw.assignment())

    @property
    def rebalances(self) -> int:
        """As ``LogConsumer.rebalances``."""
        return self._watcher.rebalances

    async def partitions(self, topic: str) -> int:
        """As ``LogConsumer.partitions``."""
        found = self._raw.partitions_for_topic(topic)
        if not found:
            raise LogUnavailable(f"Kafka: no topic {topic}")
        return len(found)

    async def poll(
        self, partitions: Collection[TopicPartition], *, timeout_s: float, max_records: int
    ) -> Mapping[TopicPartition, Sequence[LogRecord]]:
        """As ``LogConsumer.poll``."""
        assigned = [_raw_partition(each) for each in partitions if each in self.assignment]
        if not assigned:
            await asyncio.sleep(min(timeout_s, 0.05))
            return {}
        with _translated():
            found = await self._raw.getmany(*assigned, timeout_ms=int(timeout_s * 1000), max_records=max_records)
        return {TopicPartition(key.topic, key.partition): [_record(each) for each in found[key]] for key in found}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """As ``LogConsumer.seek``."""
        if partition in self.assignment:
            self._raw.seek(_raw_partition(partition), offset)

    async def bounds(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        """As ``LogConsumer.bounds``."""
        raw = [_raw_partition(each) for each in partitions]
        with _translated():
            first = await asyncio.wait_for(self._raw.beginning_offsets(raw), REQUEST_TIMEOUT_S)
            last = await asyncio.wait_for(self._raw.end_offsets(raw), REQUEST_TIMEOUT_S)
        return {TopicPartition(each.topic, each.partition): (first[each], last[each]) for each in raw}

    async def close(self) -> None:
        """As ``LogConsumer.close``."""
        await _stop(self._raw)


class KafkaLog:
    """``Log`` on Kafka.

    Args:
        settings: How to reach the brokers.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings

    async def open_producer(self) -> KafkaProducer:
        """As ``Log.open_producer``."""
        return await KafkaProducer.open(self.settings)

    async def open_consumer(self, topics: Collection[str], *, group: str) -> KafkaConsumer:
        """As ``Log.open_consumer``."""
        return await KafkaConsumer.open(self.settings, topics, group=group)

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """As ``Log.end_offsets``, by a client of its own: for people, not for every second."""
        raw = aiokafka.AIOKafkaConsumer(**self.settings.client_arguments(), group_id=None)
        try:
            with _translated():
                await asyncio.wait_for(raw.start(), REQUEST_TIMEOUT_S)
                known = await asyncio.wait_for(raw.topics(), REQUEST_TIMEOUT_S) if partitions else ()
                asked = [_raw_partition(each) for each in partitions if each.topic in known]
                ends = await asyncio.wait_for(raw.end_offsets(asked), REQUEST_TIMEOUT_S) if asked else {}
        finally:
            await _stop(raw)
        return {TopicPartition(each.topic, each.partition): offset for each, offset in ends.items()}

    async def ensure_topics(self, topics: Iterable[TopicSpec]) -> None:
        """Creates the topics that do not exist; leaves the others as they are.

        Raises:
            LogUnavailable: the broker cannot be reached or refuses.
        """
        admin = AIOKafkaAdminClient(**self.settings.client_arguments())
        try:
            with _translated():
                await asyncio.wait_for(admin.start(), REQUEST_TIMEOUT_S)
                brokers = len((await admin.describe_cluster())["brokers"])
                existing = set(await admin.list_topics())
                for each in topics:
                    if each.name not in existing:
                        await _create(admin, each, replicas=min(3, brokers))
        finally:
            await admin.close()


class _Watcher(aiokafka.ConsumerRebalanceListener):  # type: ignore[misc]  # an untyped base
    def __init__(self) -> None:
        self.rebalances = 0

    def on_partitions_revoked(self, revoked: object) -> None:
        """Nothing to save: offsets move with their effects."""

    def on_partitions_assigned(self, assigned: object) -> None:  # noqa: ARG002 - what it is called with
        """Positions are to be sought anew."""
        self.rebalances += 1


def _raw_partition(partition: TopicPartition) -> Any:  # Any: an untyped named tuple
    return aiokafka.TopicPartition(partition.topic, partition.partition)


def _record(raw: Any) -> LogRecord:  # Any: an untyped record
    return LogRecord(
        topic=raw.topic,
        partition=raw.partition,
        offset=raw.offset,
        timestamp_ms=raw.timestamp,
        key=raw.key,
        value=raw.value or b"",
        headers=tuple(raw.headers),
    )


async def _stop(raw: Any) -> None:  # Any: an untyped client
    # In a task of its own: aiokafka 0.14 cancels its fetches and lets their CancelledError out of stop(), which would
    # end whoever stops a client while the broker is away.
    stopping = asyncio.ensure_future(raw.stop())
    try:
        await asyncio.wait({stopping}, timeout=REQUEST_TIMEOUT_S)
    finally:
        stopping.cancel()
    await asyncio.wait({stopping}, timeout=1)
    with suppress(KafkaError, OSError):  # a client whose broker is gone has nothing left to say goodbye to
        if stopping.cancelled():  # it came no further than its fetches: its connections are still open
            # A producer names its client in public, a consumer does not.
            client = raw.client if isinstance(raw, aiokafka.AIOKafkaProducer) else raw._client  # noqa: SLF001
            await asyncio.wait_for(client.close(), REQUEST_TIMEOUT_S)
        elif stopping.done():
            stopping.result()
