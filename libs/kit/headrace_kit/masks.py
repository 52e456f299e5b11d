"""Field masks: which fields an answer shall have, and which a change is about (AIP-157 and AIP-134)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from headrace_kit.errors import InvalidArgument
from headrace_kit.validate import require_size

M = TypeVar("M", bound=Message)

MAX_PATHS: Final = 100


def picked(messages: Iterable[M], mask: FieldMask, *, kind: type[M], field: str = "read_mask") -> list[M]:
    """The messages with the fields of the mask only, as copies; whole and as they are when the mask is empty.

    Raises:
        InvalidArgument: A path is no field of ``kind``, or there are too many.
    """
    require_mask(mask, kind, field=field)
    if not mask.paths:
        return list(messages)
    return [_only(message, mask, kind) for message in messages]


def merged(present: M, change: M, mask: FieldMask, *, field: str = "update_mask") -> M:
    """``present`` with the fields of the mask as ``change`` has them; ``change`` itself when the mask is empty.

    A field that ``change`` does not have takes its zero value; lists and maps are replaced, not joined.

    Raises:
        InvalidArgument: A path is no field of the message, or there are too many.
    """
    require_mask(mask, type(present), field=field)
    if not mask.paths:
        return change
    result = type(present)()
    result.CopyFrom(present)
    mask.MergeMessage(change, result, replace_message_field=True, replace_repeated_field=True)
    return result


def require_mask(mask: FieldMask, kind: type[Message], *, field: str) -> None:
    """Raises InvalidArgument when a path is no field of the message, naming it."""
    require_size(mask.paths, field=field, most=MAX_PATHS)
    descriptor: Any = kind.DESCRIPTOR  # Any: the stubs disagree on which of protobuf's two descriptor classes it is
    for path in mask.paths:
        if not FieldMask(paths=[path]).IsValidForDescriptor(descriptor):
            known = ", ".join(each.name for each in descriptor.fields)
            raise InvalidArgument(f"{path[:100]!r} is no field of {descriptor.name}; it has {known}", field=field)


def _only(message: M, mask: FieldMask, kind: type[M]) -> M:
    result = kind()
    mask.MergeMessage(message, result)
    return result
