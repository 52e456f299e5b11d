"""The guard finds NUL in whatever text of whatever request, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.audit.v1 import service_pb2 as audit
from headrace.api.monitor.v1 import service_pb2 as monitor
from headrace.api.orchestrator.v1 import service_pb2 as orchestrator
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.serving.v1 import service_pb2 as serving
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace_kit.errors import InvalidArgument
from headrace_kit.rpc.guard import require_sound

REQUESTS: list[Descriptor] = [
    method.input_type
    for module in (audit, monitor, orchestrator, registry, serving, tracking)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)


@st.composite
def messages(draw: Any, descriptor: Descriptor, depth: int = 4) -> Message:
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if draw(st.integers(0, 3)) == 0:
            continue
        fill(draw, message, field, depth)
    return message


def fill(draw: Any, message: Any, field: FieldDescriptor, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        if key.type == FieldDescriptor.TYPE_STRING and value.type == FieldDescriptor.TYPE_STRING:
            getattr(message, field.name)[draw(TEXT)] = draw(TEXT)
    elif field.message_type is not None:
        if depth:
            inner = draw(messages(field.message_type, depth - 1))
            if field.is_repeated:
                getattr(message, field.name).add().CopyFrom(inner)
            else:
                getattr(message, field.name).CopyFrom(inner)
    elif field.type == FieldDescriptor.TYPE_STRING:
        if field.is_repeated:
            getattr(message, field.name).append(draw(TEXT))
        else:
            setattr(message, field.name, draw(TEXT))
    elif field.type == FieldDescriptor.TYPE_BYTES and not field.is_repeated:
        setattr(message, field.name, b"\0")


def texts(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in value:
                yield from (each for each in (key, value[key]) if isinstance(each, str))
                if isinstance(value[key], Message):
                    yield from texts(value[key])
        elif field.message_type is not None:
            for each in values:
                yield from texts(each)
        elif field.type == FieldDescriptor.TYPE_STRING:
            yield from values


def refusal_of(call: Callable[[], object]) -> InvalidArgument | None:
    try:
        call()
    except InvalidArgument as error:
        return error
    return None


@settings(max_examples=300)
@given(st.data())
def test_nul_is_found_wherever_it_is(data: st.DataObject) -> None:
    request = data.draw(st.sampled_from(REQUESTS).flatmap(messages))
    refusal = refusal_of(lambda: require_sound(request))
    assert (refusal is not None) == any("\0" in text for text in texts(request))
    if refusal is not None:
        assert refusal.field.partition(".")[0].partition("[")[0].split(" ")[0] in request.DESCRIPTOR.fields_by_name


def test_there_are_requests_to_try() -> None:
    assert len(REQUESTS) > 40
