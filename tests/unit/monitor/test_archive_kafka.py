"""Archiver and eraser reach the brokers as every other client of the service does: by SASL and TLS where it is set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import pytest

from headrace.api.monitor.v1.service_pb2 import EraseTelemetryRequest
from headrace.kafka.reading import TopicUnreadable, delete_records_before
from headrace_kit.lease import Fence
from headrace_kit.log import KafkaSettings
from headrace_monitor.archiving import ArchivePolicy, Archiver
from headrace_monitor.erasing import Eraser
from headrace_monitor.erasurestore import Pending

NOTHING: Final[Any] = None
FENCE: Final = Fence("archive", 1)
POLICY: Final = ArchivePolicy(close_after=timedelta(hours=1), max_bytes=1, keep=timedelta(days=1))
TLS_HANDSHAKE: Final = b"\x16\x03"


class _Pending:
    """One erasure that has not begun."""

    async def pending(self) -> list[Pending]:
        return [Pending(uuid4(), "", "persons/operator", EraseTelemetryRequest(), None)]


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A port that hangs up, and the first bytes of whoever called."""
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(2))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", heard
    finally:
        server.close()
        await server.wait_closed()


def archiver(kafka: KafkaSettings) -> Archiver:
    return Archiver(NOTHING, NOTHING, NOTHING, kafka=kafka, policy=POLICY)


def eraser(kafka: KafkaSettings) -> Eraser:
    erasures: Any = _Pending()
    return Eraser(NOTHING, NOTHING, erasures, NOTHING, archiver(kafka), kafka=kafka, topics=["t.predictions.v1"])


@pytest.mark.parametrize("protocol", ["SSL", "SASL_SSL"])
async def test_the_archiver_the_eraser_and_what_drops_records_speak_tls(protocol: str) -> None:
    async with listening() as (bootstrap, heard):
        kafka = KafkaSettings(bootstrap, security_protocol=protocol, username="u", password="p")
        for call in (
            lambda: archiver(kafka).step("t.predictions.v1", FENCE),
            lambda: eraser(kafka).step(FENCE),
            lambda: delete_records_before(bootstrap, "t", {0: 1}, options=kafka.security_arguments()),
        ):
            heard.clear()
            with pytest.raises(TopicUnreadable):
                await call()
            assert set(heard) == {TLS_HANDSHAKE}


async def test_without_settings_they_speak_in_the_clear() -> None:
    async with listening() as (bootstrap, heard):
        with pytest.raises(TopicUnreadable):
            await archiver(KafkaSettings(bootstrap)).step("t.predictions.v1", FENCE)
        assert heard
        assert TLS_HANDSHAKE not in heard


def test_settings_of_security_are_part_of_every_client_s() -> None:
    kafka = KafkaSettings(
        "b:1", security_protocol="SASL_PLAINTEXT", sasl_mechanism="SCRAM-SHA-512", username="u", password="p"
    )
    assert kafka.security_arguments().items() <= kafka.client_arguments().items()
    assert kafka.security_arguments() == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": "p",
        "ssl_context": None,
    }
