"""A Kafka whose clients come through a proxy: they follow what the broker advertises, not their bootstrap."""

from __future__ import annotations

from dataclasses import dataclass, fields

from headrace_kit.testing import FaultProxy
from headrace_local.kafka import Kafka
from headrace_local.testing import Infrastructure


@dataclass(frozen=True, slots=True)
class ProxiedKafka(Kafka):
    """A broker whose clients are told another address than its own."""

    advertised: str = ""

    def _properties(self) -> str:
        own, told = (f"advertised.listeners=PLAINTEXT://{each}\n" for each in (self.address, self.advertised))
        return Kafka._properties(self).replace(own, told)


def proxy_kafka(servers: Infrastructure) -> FaultProxy:
    """Put a proxy before the broker, which starts anew for it, and return it."""
    kept = servers.stack.supervised["kafka"]
    assert isinstance(kept.part, Kafka)
    proxy = FaultProxy("127.0.0.1", kept.part.port)
    servers.call(proxy.start())
    settings = {each.name: getattr(kept.part, each.name) for each in fields(kept.part)}
    kept.part = ProxiedKafka(**settings, advertised=proxy.address)
    servers.wait_ready("kafka", other_than=servers.kill("kafka"))
    return proxy


def proxy_postgres(servers: Infrastructure) -> FaultProxy:
    """Put a proxy before PostgreSQL and return it."""
    host, _, port = servers.stack.supervised["postgres"].part.address.partition(":")
    proxy = FaultProxy(host, int(port))
    servers.call(proxy.start())
    return proxy
