"""Every service of the platform, from blocking code.

An example::

    with connect() as client:
        model = client.registry.GetModel(GetModelRequest(name="projects/default/models/delays")).model
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import grpc

from headrace.api.audit.v1.service_pb2_grpc import AuditServiceStub
from headrace.api.monitor.v1.service_pb2_grpc import ArchiveServiceStub, MonitorServiceStub, TelemetryServiceStub
from headrace.api.orchestrator.v1.service_pb2_grpc import OrchestratorServiceStub
from headrace.api.registry.v1.service_pb2_grpc import (
    PersonServiceStub,
    RegistryServiceStub,
    SigningServiceStub,
    WebhookServiceStub,
)
from headrace.api.serving.v1.service_pb2_grpc import ServingServiceStub
from headrace.api.tracking.v1.service_pb2_grpc import TrackingServiceStub
from headrace.channel import open_channel
from headrace.connection import Connection, find
from headrace.errors import from_rpc_error
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub


class Client:
    """Stubs of every service; channels open when they are first used. For many threads.

    Used as a context manager it closes the channels, and what a call raised inside it becomes a ``HeadraceError``.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._channels: dict[str, grpc.Channel] = {}

    @property
    def tracking(self) -> TrackingServiceStub:
        """Runs and experiments."""
        return TrackingServiceStub(self.channel("tracking"))

    @property
    def registry(self) -> RegistryServiceStub:
        """Models and versions."""
        return RegistryServiceStub(self.channel("registry"))

    @property
    def signing(self) -> SigningServiceStub:
        """Signatures of packages, and the keys whose signatures count."""
        return SigningServiceStub(self.channel("registry"))

    @property
    def persons(self) -> PersonServiceStub:
        """Persons and their display names."""
        return PersonServiceStub(self.channel("registry"))

    @property
    def webhooks(self) -> WebhookServiceStub:
        """Webhooks of the registry and their deliveries."""
        return WebhookServiceStub(self.channel("registry"))

    @property
    def orchestrator(self) -> OrchestratorServiceStub:
        """Pipelines and their runs."""
        return OrchestratorServiceStub(self.channel("orchestrator"))

    @property
    def serving(self) -> ServingServiceStub:
        """Endpoints."""
        return ServingServiceStub(self.channel("serving"))

    @property
    def inference(self) -> GRPCInferenceServiceStub:
        """Answers of models: the Open Inference Protocol."""
        return GRPCInferenceServiceStub(self.channel("serving"))

    @property
    def monitor(self) -> MonitorServiceStub:
        """Monitors and alerts."""
        return MonitorServiceStub(self.channel("monitor"))

    @property
    def telemetry(self) -> TelemetryServiceStub:
        """Predictions and labels of models served elsewhere."""
        return TelemetryServiceStub(self.channel("monitor"))

    @property
    def archive(self) -> ArchiveServiceStub:
        """Archived predictions and labels."""
        return ArchiveServiceStub(self.channel("monitor"))

    def log(self, service: str) -> AuditServiceStub:
        """The event log of a service, by its name."""
        return AuditServiceStub(self.channel(service))

    def channel(self, service: str) -> grpc.Channel:
        """The channel to a service. Raises NotConnected when it does not run."""
        if service not in self._channels:
            self._channels[service] = open_channel(self.connection.address(service), self.connection.token)
        return self._channels[service]

    def close(self) -> None:
        """Closes every channel."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, grpc.RpcError):
            raise from_rpc_error(error) from error


def connect(connection: Connection | None = None) -> Client:
    """A client of the platform that ``find()`` finds. Raises NotConnected when there is none."""
    return Client(connection or find())
