"""Every RPC of the platform from its descriptor, called with bytes; what came back, and whether it may."""
# grpc's calls by name have no types: inside this module Any is a call or what it answers.

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from headrace.api.audit.v1 import service_pb2 as audit
from headrace.api.monitor.v1 import service_pb2 as monitor
from headrace.api.orchestrator.v1 import service_pb2 as orchestrator
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.serving.v1 import service_pb2 as serving
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace.errors import error_details
from headrace.inference import grpc_service_pb2 as inference

OWN: Final[dict[str, tuple[FileDescriptor, ...]]] = {
    "tracking": (tracking.DESCRIPTOR,),
    "registry": (registry.DESCRIPTOR,),
    "orchestrator": (orchestrator.DESCRIPTOR,),
    "serving": (serving.DESCRIPTOR, inference.DESCRIPTOR),
    "monitor": (monitor.DESCRIPTOR,),
}
NEVER: Final = (
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.UNAUTHENTICATED,
)
"""What no request of a known caller may be answered with."""
_LEAKS: Final = ("Traceback", 'File "', "asyncpg", "Exception iterating", "psycopg", "internal error")
_STEP: Final = re.compile(r"""([a-z_0-9]+)((?:\[(?:\d+|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\])?)(?:\.|$)""")
_REASON: Final = re.compile(r"[A-Z][A-Z0-9_]+")
_STREAM_S: Final = 0.4
"""How long an answer without an end is listened to."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method at the service that answers it."""

    service: str
    descriptor: MethodDescriptor

    @property
    def path(self) -> str:
        """As it stands in the call."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def request(self) -> Descriptor:
        """Type of its requests."""
        return self.descriptor.input_type

    @property
    def input_class(self) -> type[Message]:
        """Class of its requests."""
        return GetMessageClass(self.request)

    def __str__(self) -> str:
        return f"{self.service}-{self.descriptor.name}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to."""

    code: grpc.StatusCode
    message: str = ""
    reason: str = ""
    field: str = ""

    @property
    def accepted(self) -> bool:
        """Whether it was not refused."""
        return self.code is grpc.StatusCode.OK


def methods() -> list[Method]:
    """Every method of every service; those of the log once for each service that has one."""
    return [
        Method(service, method)
        for service, files in OWN.items()
        for file in (*files, audit.DESCRIPTOR)
        for each in file.services_by_name.values()
        for method in each.methods
    ]


def call(
    given: grpc.Channel, method: Method, requests: Sequence[bytes], *, metadata: Sequence[tuple[str, str]] = ()
) -> Outcome:
    """Sends bytes as they are. Of an answer without an end only the beginning is heard."""
    streamed = method.descriptor.server_streaming
    channel: Any = given
    try:
        if method.descriptor.client_streaming:
            answers: Any = channel.stream_stream(method.path)(iter(requests), timeout=10, metadata=metadata)
            for answer in answers:
                _require_clean(answer)
        elif streamed:
            _listen(channel.unary_stream(method.path)(requests[0], timeout=_STREAM_S, metadata=metadata))
        else:
            channel.unary_unary(method.path)(requests[0], timeout=20, metadata=metadata)
    except grpc.RpcError as error:
        code, details = error_details(error)
        if streamed and not method.descriptor.client_streaming and code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Outcome(grpc.StatusCode.OK)
        return Outcome(code, details.message, details.reason, details.field)
    return Outcome(grpc.StatusCode.OK)


def require_civil(method: Method, outcome: Outcome) -> None:
    """Fails unless a refusal blames the request, says why in words and a reason, and names a field there is."""
    if outcome.accepted:
        return
    assert outcome.code not in NEVER, outcome
    assert not any(leak in outcome.message for leak in _LEAKS), outcome
    assert outcome.message, outcome
    assert _REASON.fullmatch(outcome.reason), outcome
    told = outcome.code is grpc.StatusCode.INVALID_ARGUMENT and outcome.reason != "MALFORMED_REQUEST"
    if told or outcome.field:
        assert is_path(method.request, outcome.field), outcome


def is_path(descriptor: Descriptor, path: str) -> bool:
    """Whether a path such as ``definition.steps[3].id`` or ``tags['team']`` leads to a field of a message."""
    here: Descriptor | None = descriptor
    at = 0
    while at < len(path):
        step = _STEP.match(path, at)
        leaf = here.fields_by_name.get(step[1]) if here is not None and step is not None else None
        if step is None or leaf is None or (step[2] and not leaf.is_repeated):
            return False
        here, at = _below(leaf), step.end()
    return bool(path) and not path.endswith(".")


def _below(leaf: FieldDescriptor) -> Descriptor | None:
    entry = leaf.message_type
    return entry.fields_by_name["value"].message_type if entry is not None and entry.GetOptions().map_entry else entry


def _listen(answers: Any) -> None:
    for _ in answers:
        answers.cancel()
        return


def _require_clean(answer: bytes) -> None:
    assert not any(leak.encode() in answer for leak in _LEAKS), answer[:500]


def offered(names: Sequence[str]) -> Iterator[str]:
    """Of the services that a server offers, those that are not grpc's own."""
    return (name for name in names if not name.startswith("grpc."))
