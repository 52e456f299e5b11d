"""Hypothesis strategies for protobuf messages, drawn from their descriptors."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

M = TypeVar("M", bound=Message)
NASTY = (
    "",
    "x",
    "a" * 501,
    "projects/default/endpoints/nobody",
    "projects/default/models/m/versions/1",
    "projects/../../etc/passwd",
    "'; DROP TABLE events; --",
    "\u0000",
    "\u202e\U0001f600 ß",
    "00000000-0000-4000-8000-000000000001",
)
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-1, 9),
}


def messages(kind: type[M], *, depth: int = 4) -> st.SearchStrategy[M]:
    """Messages of a class: any field absent, plain, extreme or nasty; NaN and infinities included."""

    def build(data: bytes) -> M:
        return kind.FromString(data)

    descriptor: Any = kind.DESCRIPTOR  # Any: one of two classes that are the same but for their types
    return _serialized(descriptor, depth).map(build)


def _serialized(descriptor: Descriptor, depth: int) -> st.SearchStrategy[bytes]:
    return _drawn(descriptor, depth).map(lambda message: message.SerializeToString())


@st.composite
def _drawn(draw: st.DrawFn, descriptor: Descriptor, depth: int) -> Message:
    message: Message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if draw(st.integers(0, 3)) == 0:
            continue
        if field.is_repeated:
            _fill(draw, message, field, depth)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            if depth and field.message_type is not None:
                getattr(message, field.name).MergeFromString(draw(_serialized(field.message_type, depth - 1)))
        else:
            setattr(message, field.name, draw(_scalar(field)))
    return message


def _fill(draw: st.DrawFn, message: Message, field: FieldDescriptor, depth: int) -> None:
    count = draw(st.integers(0, 3))
    target: Any = getattr(message, field.name)  # Any: a repeated field or map of the type's own
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        for _ in range(count):
            key = draw(_scalar(entry.fields_by_name["key"]))
            value = entry.fields_by_name["value"]
            if value.message_type is not None:
                target[key].MergeFromString(draw(_serialized(value.message_type, depth - 1)))
            else:
                target[key] = draw(_scalar(value))
    elif entry is not None:
        for _ in range(count if depth else 0):
            target.add().MergeFromString(draw(_serialized(entry, depth - 1)))
    else:
        target.extend(draw(_scalar(field)) for _ in range(count))


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_FLOAT:
            return st.floats(width=32)
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return st.floats()
        case FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return st.binary(max_size=40)
            return st.sampled_from(NASTY) | st.text(max_size=20)
        case kind:
            low, high = _INTEGERS[kind]
            return st.integers(low, high) | st.integers(max(low, -1), 3)
