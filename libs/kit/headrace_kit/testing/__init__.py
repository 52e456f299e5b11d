"""Twins and helpers for tests of services: nothing here needs a server, a network beyond loopback, or pytest.

Real PostgreSQL, Kafka and S3 for tests come from ``headrace_local.testing``.
"""

from headrace_kit.eventstore import MemoryEventStore
from headrace_kit.log import MemoryLog
from headrace_kit.objects import MemoryObjectStore
from headrace_kit.testing.clock import FixedClock
from headrace_kit.testing.network import Conditions, FaultProxy
from headrace_kit.testing.serving import (
    OPERATOR_CALLER,
    SERVICE_CALLER,
    Caller,
    RunningServer,
    serving,
    write_tokens,
)

__all__ = [
    "OPERATOR_CALLER",
    "SERVICE_CALLER",
    "Caller",
    "Conditions",
    "FaultProxy",
    "FixedClock",
    "MemoryEventStore",
    "MemoryLog",
    "MemoryObjectStore",
    "RunningServer",
    "serving",
    "write_tokens",
]
