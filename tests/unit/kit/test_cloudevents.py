"""Events as headers and back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from google.protobuf.wrappers_pb2 import Int64Value
from hypothesis import given
from hypothesis import strategies as st

from headrace_kit.cloudevents import MalformedEvent, ReceivedEvent, decoded, from_headers, to_headers
from headrace_kit.eventtypes import EventTypes

EVENT = ReceivedEvent(
    id=UUID("01890a5d-ac96-7b1a-b2c3-d4e5f6a7b8c9"),
    type="headrace.registry.v1.VersionPromoted",
    source="headrace/registry",
    subject="projects/default/models/m",
    time=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    sequence=3,
    position=7,
    hlc=116_000_000_000_000_001,
    project="default",
    actor="services/registry",
    on_behalf_of="persons/operator",
    causation_id=UUID(int=1),
    correlation_id=UUID(int=2),
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    data=b"\x08\x01",
    message=None,
)


def test_headers_are_those_of_the_binding() -> None:
    assert to_headers(EVENT) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"01890a5d-ac96-7b1a-b2c3-d4e5f6a7b8c9"),
        ("ce_type", b"headrace.registry.v1.VersionPromoted"),
        ("ce_source", b"headrace/registry"),
        ("ce_subject", b"projects/default/models/m"),
        ("ce_time", b"2026-01-02T03:04:05.678901Z"),
        ("ce_sequence", b"3"),
        ("ce_position", b"7"),
        ("ce_hlc", b"116000000000000001"),
        ("ce_project", b"default"),
        ("ce_actor", b"services/registry"),
        ("ce_onbehalfof", b"persons/operator"),
        ("ce_causationid", b"00000000-0000-0000-0000-000000000001"),
        ("ce_correlationid", b"00000000-0000-0000-0000-000000000002"),
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("content-type", b"application/protobuf"),
    ]


names = st.text(min_size=1, max_size=20)
numbers = st.integers(0, (1 << 63) - 1)
events = st.builds(
    ReceivedEvent,
    id=st.uuids(),
    type=names,
    source=names,
    subject=names,
    time=st.datetimes(timezones=st.just(UTC)),
    sequence=numbers,
    position=numbers,
    hlc=numbers,
    project=st.text(max_size=5),
    actor=st.text(max_size=5),
    on_behalf_of=st.text(max_size=5),
    causation_id=st.none() | st.uuids(),
    correlation_id=st.none() | st.uuids(),
    traceparent=st.text(max_size=5),
    data=st.binary(max_size=20),
    message=st.none(),
)


@given(events, st.text(max_size=10))
def test_what_goes_out_comes_back(event: ReceivedEvent, reference: str) -> None:
    assert from_headers(to_headers(event, dataref=reference), event.data) == (event, reference)


def test_unknown_headers_are_ignored() -> None:
    headers = [*to_headers(EVENT), ("ce_later", b"x"), ("other", b"\xff")]

    assert from_headers(headers, EVENT.data) == (EVENT, "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_id", b"7"),
        ("ce_type", b""),
        ("ce_source", b"\xff"),
        ("ce_time", b"yesterday"),
        ("ce_time", b"2026-01-02T03:04:05"),
        ("ce_sequence", b"-1"),
        ("ce_position", b"1.5"),
        ("ce_position", "\u0663".encode()),
        ("ce_hlc", b"9223372036854775808"),
        ("ce_causationid", b"x"),
    ],
)
def test_a_malformed_attribute_is_named(name: str, value: bytes) -> None:
    headers = [(key, value if key == name else held) for key, held in to_headers(EVENT)]

    with pytest.raises(MalformedEvent) as refused:
        from_headers(headers, b"")

    assert refused.value.field == name


def test_the_message_is_decoded_when_its_type_is_known() -> None:
    types = EventTypes(Int64Value)
    event = replace(EVENT, type="google.protobuf.Int64Value")

    assert decoded(event, types).message == Int64Value(value=1)
    assert decoded(EVENT, types).message is None
    with pytest.raises(MalformedEvent):
        decoded(replace(event, data=b"\xff"), types)
