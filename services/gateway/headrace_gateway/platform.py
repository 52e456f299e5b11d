"""The services behind the console: stubs for reading in the gateway's name and for acting in a person's."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import grpc

from headrace.api.audit.v1.service_pb2_grpc import AuditServiceStub
from headrace.api.monitor.v1.service_pb2_grpc import MonitorServiceStub
from headrace.api.orchestrator.v1.service_pb2_grpc import OrchestratorServiceStub
from headrace.api.registry.v1.service_pb2_grpc import PersonServiceStub, RegistryServiceStub, WebhookServiceStub
from headrace.api.serving.v1.service_pb2_grpc import ServingServiceStub
from headrace.api.tracking.v1.service_pb2_grpc import TrackingServiceStub
from headrace_gateway.config import GatewaySettings
from headrace_kit.rpc import channel

NAMES: Final = ("tracking", "registry", "orchestrator", "serving", "monitor")
_STUBS: Final[dict[str, Callable[[grpc.aio.Channel], Any]]] = {  # Any: awaited stubs, typed by grpc as blocking ones
    "tracking": TrackingServiceStub,
    "registry": RegistryServiceStub,
    "orchestrator": OrchestratorServiceStub,
    "serving": ServingServiceStub,
    "monitor": MonitorServiceStub,
}


class Services:
    """Stubs of the services whose ``host:port`` is known, with one token; connects at the first call."""

    def __init__(self, addresses: Mapping[str, str | None], token: Callable[[], str]) -> None:
        self._channels = {name: channel(each, token) for name, each in addresses.items() if each}
        self._stubs = {name: _STUBS[name](each) for name, each in self._channels.items()}
        self._logs = {name: AuditServiceStub(each) for name, each in self._channels.items()}

    @property
    def names(self) -> list[str]:
        """Services that are known."""
        return list(self._channels)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - see _STUBS
        if name not in NAMES:
            raise AttributeError(name)
        if name not in self._stubs:
            raise ServiceMissingError(name)
        return self._stubs[name]

    @property
    def persons(self) -> Any:  # noqa: ANN401 - see _STUBS
        """The stub of persons; None where the registry is not known."""
        found = self._channels.get("registry")
        return None if found is None else PersonServiceStub(found)

    @property
    def webhooks(self) -> Any:  # noqa: ANN401 - see _STUBS
        """The stub of webhooks. Raises ServiceMissingError where the registry is not known."""
        found = self._channels.get("registry")
        if found is None:
            raise ServiceMissingError("registry")
        return WebhookServiceStub(found)

    def log(self, name: str) -> Any:  # noqa: ANN401 - see _STUBS
        """The log of a service."""
        return self._logs[name]

    async def close(self) -> None:
        """Closes the channels."""
        for each in self._channels.values():
            await each.close()


class ServiceMissingError(Exception):
    """The console was started without this service."""


class Platform:
    """Both hands of the console: ``read`` in the gateway's name, ``act`` in that of the person who entered."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.project = settings.project
        self.serving_url = str(settings.serving_url or "").rstrip("/")
        addresses = {name: getattr(settings, f"{name}_address") for name in NAMES}
        self.read = Services(addresses, settings.token)
        self.act = Services(addresses, _reader(settings.person_token_file, settings.token))

    @property
    def parent(self) -> str:
        """Resource name of the project."""
        return f"projects/{self.project}"

    async def close(self) -> None:
        """Closes every channel."""
        await self.read.close()
        await self.act.close()


def _reader(path: Path | None, otherwise: Callable[[], str]) -> Callable[[], str]:
    if path is None:
        return otherwise
    return lambda: path.read_text(encoding="ascii").strip()
