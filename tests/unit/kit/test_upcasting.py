"""Upcasters: chains, circles, and what may be written."""

from __future__ import annotations

from typing import cast

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue, Int32Value, Int64Value

from headrace.api.registry.v1.events_pb2 import VersionPromoted
from headrace_kit.errors import FailedPrecondition
from headrace_kit.eventtypes import EventTypes, UnknownEventType, has_unknown_fields, is_known
from headrace_kit.upcasting import Upcasters


def from_bool(event: Message) -> Message:
    return Int32Value(value=int(cast("BoolValue", event).value))


def from_int32(event: Message) -> Message:
    return Int64Value(value=10 * cast("Int32Value", event).value)


def one_more(event: Message) -> Message:
    return Int64Value(value=cast("Int64Value", event).value + 1)


def test_a_chain_is_walked_to_its_end_and_a_class_that_stays_ends_it() -> None:
    upcasters = Upcasters({BoolValue: from_bool, Int32Value: from_int32, Int64Value: one_more})

    assert upcasters.apply(BoolValue(value=True)) == Int64Value(value=11)


def test_what_no_upcaster_takes_stays_the_very_message() -> None:
    message = Int64Value(value=3)

    assert Upcasters({BoolValue: from_bool}).apply(message) is message


def test_a_circle_is_refused() -> None:
    upcasters = Upcasters({BoolValue: from_bool, Int32Value: lambda _: BoolValue()})

    with pytest.raises(FailedPrecondition, match="lead back"):
        upcasters.apply(BoolValue())


def test_an_earlier_type_is_read_and_never_written() -> None:
    types = EventTypes(Int64Value, upcasters=Upcasters({Int32Value: from_int32}))

    assert types.decode("google.protobuf.Int32Value", b"\x08\x02") == Int64Value(value=20)
    with pytest.raises(UnknownEventType):
        types.name(Int32Value())


def test_what_is_cast_up_to_a_type_not_handled_is_passed_over() -> None:
    types = EventTypes(BoolValue, upcasters=Upcasters({Int32Value: from_int32}))

    assert types.decode("google.protobuf.Int32Value", b"\x08\x02") is None


def test_known_are_the_messages_of_this_build() -> None:
    assert is_known("headrace.registry.v1.VersionPromoted")
    assert is_known("google.protobuf.Int64Value")
    assert not is_known("headrace.registry.v9.VersionPromoted")


def test_unknown_fields_are_found_at_any_depth() -> None:
    event = VersionPromoted(version="v")
    event.promotion.approvals.add(actor="persons/a")
    assert not has_unknown_fields(event)

    event.promotion.approvals[0].MergeFromString(b"\xfa\x7f\x01x")

    assert has_unknown_fields(event)
