"""Write the golden bytes of event types that have none yet: ``python -m tools.golden``.

For every event type there is ``tests/golden/events/<type>.binpb``, the bytes of an example with every field set, and
``<type>.json``, what they say. They are what a release of that day published: a file that exists is never written
again, and nothing here can be told to. Fields added to an event later are not in its file, and need not be.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from headrace.api.common.v1 import telemetry_pb2
from headrace_kit.eventtypes import type_name
from headrace_kit.log.topics import LOG_OWNERS

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden" / "events"
DEPTH = 6
"""Messages nested deeper than this stay empty, so that those which contain themselves have an end."""

_FLOATS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)


def event_types() -> Iterator[type[Message]]:
    """Every event class of every service, and the batches of telemetry, which are published as well."""
    for owner in LOG_OWNERS:
        yield from cast("Iterable[type[Message]]", import_module(f"headrace_{owner}.events").EVENT_TYPES)
    yield telemetry_pb2.PredictionBatch
    yield telemetry_pb2.LabelBatch


def main() -> int:
    """Write what is missing; return the exit status."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for kind in event_types():
        place = GOLDEN / type_name(kind)
        data, text = Path(f"{place}.binpb"), Path(f"{place}.json")
        if not data.exists() and not text.exists():
            message = example(kind)
            data.write_bytes(message.SerializeToString(deterministic=True))
            text.write_text(to_text(message))
            sys.stdout.write(f"new: {place.name}\n")
    return 0


def to_text(message: Message) -> str:
    """A message as its golden JSON, by the protos' own names of fields."""
    plain = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def example(message: type[Message]) -> Message:
    """A message with every field set: two members of each list, one branch (the first) of each oneof."""
    return _filled(cast("Descriptor", message.DESCRIPTOR), depth=0)


def _filled(descriptor: Descriptor, *, depth: int) -> Message:
    message = GetMessageClass(descriptor)()
    if depth < DEPTH:
        for field in descriptor.fields:
            if field.containing_oneof is None or field.containing_oneof.fields[0] is field:
                _fill(message, field, depth=depth)
    return message


def _fill(message: Message, field: FieldDescriptor, *, depth: int) -> None:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        _fill_map(message, field, kind, depth=depth)
    elif field.is_repeated:
        values = [_value(field, depth=depth, index=index) for index in range(2)]
        cast("list[object]", getattr(message, field.name)).extend(values)
    elif kind is not None:
        child = cast("Message", getattr(message, field.name))
        child.CopyFrom(_filled(kind, depth=depth + 1))
        child.SetInParent()
    else:
        setattr(message, field.name, _value(field, depth=depth, index=0))


def _fill_map(message: Message, field: FieldDescriptor, entry: Descriptor, *, depth: int) -> None:
    key, value = (entry.fields_by_name[name] for name in ("key", "value"))
    for index in range(2):
        entries = getattr(message, field.name)
        name = _value(key, depth=depth, index=index)
        if value.message_type is None:
            entries[name] = _value(value, depth=depth, index=index)
        else:
            entries[name].CopyFrom(_filled(value.message_type, depth=depth + 1))


def _value(field: FieldDescriptor, *, depth: int, index: int) -> object:
    if field.message_type is not None:
        return _filled(field.message_type, depth=depth + 1)
    if field.enum_type is not None:
        numbers = sorted(value.number for value in cast("Iterable[FieldDescriptor]", field.enum_type.values))
        return numbers[-1 - index % len(numbers)]
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        text = f"{field.name} {field.number}.{index}"
        return text.encode() + b"\x00\xff" if field.type == FieldDescriptor.TYPE_BYTES else f"{text} é"
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return True
    number = field.number * 100 + index + 1
    return number + 0.25 if field.cpp_type in _FLOATS else number


if __name__ == "__main__":
    sys.exit(main())
