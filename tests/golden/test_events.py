"""Every event type has golden bytes, and today's code reads and writes them as the code of their day did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from headrace_kit.eventtypes import has_unknown_fields, type_name
from tools.golden import GOLDEN, event_types

TYPES = {type_name(each): each for each in event_types()}


def test_every_event_type_has_golden_bytes() -> None:
    missing = [name for name in TYPES if not golden(name, "binpb").exists() or not golden(name, "json").exists()]
    assert missing == [], "run `make golden` and commit what it writes"


def test_no_event_type_went_away() -> None:
    published = {path.name.removesuffix(".binpb") for path in GOLDEN.glob("*.binpb")}
    assert published - set(TYPES) == set(), "an event type is for ever: its events are in logs"


@pytest.mark.parametrize("name", TYPES)
def test_golden_bytes_are_read_and_written_as_ever(name: str) -> None:
    data = golden(name, "binpb").read_bytes()

    message = TYPES[name].FromString(data)

    assert message.SerializeToString(deterministic=True) == data
    assert not has_unknown_fields(message), "a field was removed"
    assert plain(message) == json.loads(golden(name, "json").read_text())


@pytest.mark.parametrize("name", TYPES)
def test_golden_json_says_the_golden_bytes(name: str) -> None:
    message = json_format.Parse(golden(name, "json").read_text(), TYPES[name]())

    assert message.SerializeToString(deterministic=True) == golden(name, "binpb").read_bytes()


def golden(name: str, suffix: str) -> Path:
    return GOLDEN / f"{name}.{suffix}"


def plain(message: Message) -> object:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)
