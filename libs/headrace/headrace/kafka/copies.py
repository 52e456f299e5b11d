"""Copies of events on a topic of the user's own: a part of the log, played again for a sandbox.

Copies look like the platform's own records (CloudEvents 1.0, binary mode, keyed by stream) and can not be taken for
them: each has an id of its own, and ``ce_replayof`` names the event it repeats. The id is UUIDv5 of that event and the
topic, so a repeat of a replay gives the same ids.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID, uuid5

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordTooLargeError

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.channel import MAX_MESSAGE_BYTES
from headrace.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from headrace.export.envelope import CONTENT_TYPE, attributes

RESERVED: Final = "headrace."
"""How the platform's own topics begin."""
_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class EventCopy:
    """A record: a copy of one event.

    Attributes:
        key: The event's stream.
        value: The event, as serialised by its author.
        headers: Attributes of CloudEvents in binary mode, and ``ce_replayof``.
    """

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def require_sandbox(topic: str) -> str:
    """The topic, when copies may go there.

    Raises:
        InvalidArgument: it is one of the platform's own, or no name of a topic.
    """
    if topic.startswith(RESERVED):
        message = f"{topic} is a topic of the platform, whose services would act on copies: name one of your own"
        raise InvalidArgument(message, field="to", reason="PRODUCTION_TOPIC")
    if not _TOPIC.fullmatch(topic) or topic.startswith("__") or topic in {".", ".."}:
        raise InvalidArgument(f"give 1 to 249 letters, digits and . _ - for a topic, not {topic!r}", field="to")
    return topic


def copy_of(entry: LogEntry, topic: str) -> EventCopy:
    """The copy of an event for a topic: the same each time."""
    values = attributes(entry)
    traceparent = values.pop("traceparent", "")
    values |= {"id": str(uuid5(UUID(entry.event_id), f"replay:{topic}")), "replayof": entry.event_id}
    headers = {f"ce_{name}": value for name, value in values.items()}
    headers |= {"traceparent": traceparent, "content-type": CONTENT_TYPE}
    return EventCopy(
        key=entry.stream_id.encode(),
        value=entry.data,
        headers=tuple((name, value.encode()) for name, value in headers.items() if value),
    )


class CopyPublisher:
    """Publishes copies to one topic, in order; an asynchronous context manager. For one task at a time.

    Args:
        bootstrap: Where Kafka is.
        topic: Where to; it must exist.
        timeout_s: What Kafka may take for one answer.
        options: aiokafka's own settings, such as SASL and TLS.

    Raises:
        InvalidArgument: the topic is one of the platform's own.
    """

    def __init__(
        self, bootstrap: str, topic: str, *, timeout_s: float = 30.0, options: Mapping[str, Any] | None = None
    ) -> None:
        self._bootstrap, self._topic, self._timeout_s = bootstrap, require_sandbox(topic), timeout_s
        self._producer: Any = None  # Any: aiokafka has no types
        self._options = dict(options or {})

    async def publish(self, copies: Sequence[EventCopy]) -> None:
        """Sends copies and waits until all are acknowledged.

        Raises:
            FailedPrecondition: a copy is larger than the topic allows.
            Unavailable: Kafka did not acknowledge; some may be there. A repeat gives them the same ids.
        """
        try:
            sent = [
                await self._producer.send(self._topic, each.value, key=each.key, headers=list(each.headers))
                for each in copies
            ]
            for acknowledgement in sent:
                await acknowledgement
        except (MessageSizeTooLargeError, RecordTooLargeError) as error:
            message = f"an event is larger than {self._topic} allows: raise its max.message.bytes"
            raise FailedPrecondition(message, field="to", reason="RECORD_TOO_LARGE") from error
        except (KafkaError, TimeoutError, OSError) as error:
            raise Unavailable(f"Kafka did not take the copies ({error}); the same command may be repeated") from error

    async def __aenter__(self) -> Self:
        try:
            if self._topic not in await self._topics():
                raise NotFound(f"there is no topic {self._topic}: create it first", field="to")
            self._producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                enable_idempotence=True,
                compression_type="lz4",
                linger_ms=2,
                max_request_size=MAX_MESSAGE_BYTES,
                request_timeout_ms=int(self._timeout_s * 1000),
                **self._options,
            )
            await self._producer.start()
        except (KafkaError, TimeoutError, OSError) as error:
            await self._stop()
            raise Unavailable(f"Kafka can not be reached at {self._bootstrap}: {error}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _topics(self) -> set[str]:
        """Every topic there is; asked for one that is not there, aiokafka would wait for it."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, enable_auto_commit=False, **self._options)
        try:
            async with asyncio.timeout(self._timeout_s):
                await consumer.start()
                return set(await consumer.topics())
        finally:
            await consumer.stop()

    async def _stop(self) -> None:
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None
