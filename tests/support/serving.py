"""What tests of serving need: tiny real models, and a platform of registry and serving to put them on."""

from __future__ import annotations

import asyncio
import pickle
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiokafka
import grpc
import httpx2
import numpy as np
import skl2onnx
import skops.io
from google.protobuf.message import Message
from sklearn.linear_model import LinearRegression

from headrace.api.audit.v1.service_pb2_grpc import AuditServiceStub
from headrace.api.common.v1 import resources_pb2 as common
from headrace.api.common.v1.telemetry_pb2 import PredictionBatch
from headrace.api.registry.v1 import resources_pb2 as registry
from headrace.api.registry.v1 import service_pb2 as registry_service
from headrace.api.registry.v1.service_pb2_grpc import RegistryServiceStub
from headrace.api.serving.v1 import resources_pb2 as serving
from headrace.api.serving.v1 import service_pb2 as serving_service
from headrace.api.serving.v1.service_pb2_grpc import ServingServiceStub
from headrace.inference import grpc_service_pb2 as oip
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from headrace.kafka.batches import Predictions, decode_predictions
from headrace_kit.cloudevents import ReceivedEvent, to_headers
from headrace_kit.eventtypes import type_name
from headrace_kit.log import events_topic
from headrace_kit.objects import S3ObjectStore
from headrace_local.background import BackgroundStack

COLUMNS = ("distance", "wind", "hour")
FORMATS = {
    "onnx": registry.MODEL_FORMAT_ONNX,
    "skops": registry.MODEL_FORMAT_SKOPS,
    "pickle": registry.MODEL_FORMAT_PICKLE,
}


def linear_model(weight: float) -> LinearRegression:
    """A regression that answers ``weight`` times the sum of three columns."""
    model = LinearRegression()
    model.fit(np.eye(3, dtype=np.float32), np.full(3, weight, dtype=np.float32))
    model.coef_, model.intercept_ = np.full(3, weight, dtype=np.float32), np.float32(0)
    return model


def package(weight: float, kind: str = "onnx") -> bytes:
    """That model as a package."""
    model = linear_model(weight)
    if kind == "skops":
        return bytes(skops.io.dumps(model))
    if kind == "pickle":
        return pickle.dumps(model)
    exported: Any = skl2onnx.to_onnx(model, np.zeros((1, 3), dtype=np.float32))
    return bytes(exported.SerializeToString())


def signature() -> common.Signature:
    """Its inputs and outputs."""
    return common.Signature(
        inputs=[common.TensorSpec(name="X", datatype=common.DATA_TYPE_FP32, shape=[-1, 3], columns=COLUMNS)],
        outputs=[common.TensorSpec(name="variable", datatype=common.DATA_TYPE_FP32, shape=[-1, 1])],
    )


def infer_request(model: str, rows: Sequence[Sequence[float]], **fields: Any) -> oip.ModelInferRequest:
    """A raw request for the model."""
    matrix = np.asarray(rows, dtype="<f4")
    request = oip.ModelInferRequest(model_name=model, **fields)
    request.inputs.add(name="X", datatype="FP32", shape=matrix.shape)
    request.raw_input_contents.append(matrix.tobytes())
    return request


def values(response: oip.ModelInferResponse) -> list[float]:
    """The answer to a raw request."""
    return [round(float(each), 3) for each in np.frombuffer(response.raw_output_contents[0], "<f4")]


def command_id() -> str:
    """A new command's id."""
    return str(uuid.uuid4())


@dataclass(slots=True)
class Platform:
    """A running registry and serving, and what clients need of them."""

    stack: BackgroundStack
    token: str
    registry: Any  # stubs: one class is typed for blocking and awaited calls
    author: Any  # the registry in the name of the orchestrator, whose versions the operator may let pass
    serving: Any
    inference: Any
    audit: Any  # of serving
    http: httpx2.Client
    objects: S3ObjectStore
    channels: list[grpc.Channel]

    @classmethod
    def of(cls, stack: BackgroundStack) -> Platform:
        """Clients of a started stack."""
        addresses = stack.addresses
        token = addresses.token_file.read_text().strip()
        store = addresses.s3
        assert store is not None
        channels: list[grpc.Channel] = []

        def channel(service: str, token: str = token) -> grpc.Channel:
            credentials = grpc.composite_channel_credentials(
                grpc.local_channel_credentials(), grpc.access_token_call_credentials(token)
            )
            channels.append(grpc.secure_channel(addresses.grpc[service], credentials))
            return channels[-1]

        return cls(
            stack=stack,
            token=token,
            registry=RegistryServiceStub(channel("registry")),
            author=RegistryServiceStub(
                channel("registry", (stack.stack.folder.path / "secrets" / "orchestrator.token").read_text().strip())
            ),
            serving=ServingServiceStub(channel("serving")),
            inference=GRPCInferenceServiceStub(channel("serving")),
            audit=AuditServiceStub(channel("serving")),
            http=httpx2.Client(base_url=addresses.serving_url, headers={"authorization": f"Bearer {token}"}),
            objects=S3ObjectStore(
                store.endpoint, access_key=store.access_key, secret_key=store.secret_key, bucket=store.bucket
            ),
            channels=channels,
        )

    def close(self) -> None:
        """Closes the clients."""
        self.http.close()
        asyncio.run(self.objects.close())
        for channel in self.channels:
            channel.close()

    async def register(self, model: str, weight: float, kind: str = "onnx", content: bytes | None = None) -> str:
        """A new version of a model (made when absent); its name."""
        body = package(weight, kind) if content is None else content
        reference = await self.objects.put("default", body, "application/octet-stream")
        response = self.author.CreateVersion(
            registry_service.CreateVersionRequest(
                command_id=command_id(),
                model=f"projects/default/models/{model}",
                create_model=True,
                artifact=reference,
                format=FORMATS[kind],
                signature=signature(),
            )
        )
        return str(response.version.name)

    def ungate(self, model: str) -> None:
        """Promotions of this model need nothing."""
        gates = registry.Gates(alias="production")
        name = f"projects/default/models/{model}"
        self.registry.SetGates(registry_service.SetGatesRequest(command_id=command_id(), model=name, gates=gates))

    def promote(self, version: str) -> registry.Promotion:
        """Moves ``production`` to the version."""
        request = registry_service.PromoteVersionRequest(
            command_id=command_id(), version=version, alias="production", expected_revision=-1
        )
        promotion: registry.Promotion = self.registry.PromoteVersion(request).promotion
        return promotion

    def endpoint(self, name: str, model: str, **fields: Any) -> serving.Endpoint:
        """A new endpoint on the model."""
        request = serving_service.CreateEndpointRequest(
            command_id=command_id(),
            name=f"projects/default/endpoints/{name}",
            model=f"projects/default/models/{model}",
            **fields,
        )
        endpoint: serving.Endpoint = self.serving.CreateEndpoint(request).endpoint
        return endpoint

    async def serve(self, weight: float, kind: str = "onnx", **fields: Any) -> str:
        """A model and an endpoint of one new name that answers with it."""
        name = f"m{uuid.uuid4().hex[:10]}"
        version = await self.register(name, weight, kind)
        self.ungate(name)
        self.promote(version)
        self.endpoint(name, name, **fields)
        return name

    def infer(self, model: str, rows: Sequence[Sequence[float]], **fields: Any) -> oip.ModelInferResponse:
        """One answer over gRPC."""
        response: oip.ModelInferResponse = self.inference.ModelInfer(infer_request(model, rows, **fields), timeout=10)
        return response

    def get(self, name: str) -> serving.Endpoint:
        """The endpoint."""
        request = serving_service.GetEndpointRequest(name=f"projects/default/endpoints/{name}")
        endpoint: serving.Endpoint = self.serving.GetEndpoint(request).endpoint
        return endpoint


def predictions_of(records: Sequence[bytes], endpoint: str) -> list[Predictions]:
    """The batches of an endpoint among records of the telemetry topic."""
    batches = (PredictionBatch.FromString(each) for each in records)
    return [decode_predictions(each) for each in batches if each.endpoint == endpoint]


def wait_for(condition: Callable[[], bool], *, within_s: float = 15.0) -> float:
    """Waits until ``condition`` holds and returns the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, "the condition never came true"
        time.sleep(0.01)
    return time.monotonic() - began


async def publish(platform: Platform, message: Message, *, subject: str) -> str:
    """Puts an event of the monitor's onto its topic, as its relay would; returns the event's id."""
    event = ReceivedEvent(
        id=uuid.uuid4(),
        type=type_name(message),
        source="headrace/monitor",
        subject=subject,
        time=datetime.now(UTC),
        sequence=1,
        position=time.time_ns() // 1000,
        hlc=1,
        project="default",
        actor="services/monitor",
        on_behalf_of="",
        causation_id=None,
        correlation_id=None,
        traceparent="",
        data=message.SerializeToString(),
        message=None,
    )
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=platform.stack.addresses.kafka_bootstrap, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait(
            events_topic("headrace/monitor"), event.data, key=subject.encode(), headers=to_headers(event)
        )
    finally:
        await producer.stop()
    return str(event.id)
