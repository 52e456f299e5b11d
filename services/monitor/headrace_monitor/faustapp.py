"""Faust, made to start where PostgreSQL says: the one method that is overridden, and the settings that hold it back."""
# Faust is typed loosely; this module and streams.py are where that ends.

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import faust
from faust.transport.drivers.aiokafka import Consumer as AiokafkaConsumer
from faust.transport.drivers.aiokafka import Transport as AiokafkaTransport
from faust.types import TP

from headrace_monitor.countstore import Partition

Claim = Callable[[Mapping[Partition, int]], Awaitable[Mapping[Partition, int]]]
"""Takes partitions with their earliest offsets; returns where to read on."""


class PositionedConsumer(AiokafkaConsumer):
    """Starts assigned partitions where ``app.claim`` says; what Kafka has as committed is information only."""

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Claims everything that is assigned now and seeks to it; Faust calls this at the end of each rebalance."""
        assigned = [TP(each.topic, each.partition) for each in self.assignment()]
        if not assigned:
            return {}
        app = self.app
        if not isinstance(app, TelemetryApp):
            raise TypeError("this consumer belongs to a TelemetryApp")
        earliest = {tp: offset or 0 for tp, offset in (await self.earliest_offsets(*assigned)).items()}
        positions = await app.claim({Partition(tp.topic, tp.partition): offset for tp, offset in earliest.items()})
        wanted = {TP(*partition): offset for partition, offset in positions.items()}
        for tp, offset in wanted.items():
            await self.seek(tp, offset)
        return wanted


class PositionedTransport(AiokafkaTransport):
    """aiokafka's transport with the consumer above."""

    Consumer = PositionedConsumer


class TelemetryApp(faust.App):
    """A Faust app without tables, windows, changelogs and guarantees of its own."""

    claim: Claim


def telemetry_app(name: str, bootstrap: str, *, claim: Claim, instance: str, **options: Any) -> TelemetryApp:  # noqa: ANN401 - Faust's own settings
    """The app.

    Args:
        name: Consumer group.
        bootstrap: Kafka's addresses.
        claim: See ``PositionedConsumer``.
        instance: Name of this worker in its group (static membership): it gets its partitions back after a restart
            without waiting for its former self's session to end.
        options: Further settings of Faust.
    """
    app = TelemetryApp(
        name,
        broker=";".join(f"aiokafka://{each}" for each in bootstrap.split(",")),
        store="memory://",
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=instance,
        broker_session_timeout=10.0,
        broker_heartbeat_interval=2.0,
        broker_commit_interval=5.0,
        consumer_max_fetch_size=4 * 1024 * 1024,
        stream_buffer_maxsize=256,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        **options,
    )
    app.claim = claim
    app.transport = PositionedTransport(app.conf.broker_consumer, app)
    return app
