"""The papers and images that are made from the protos say what the code does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from headrace_kit.cloudevents import ReceivedEvent, to_headers
from headrace_kit.eventtypes import type_name
from headrace_kit.log.topics import PLATFORM_TOPICS
from tests.support.counters import NOW
from tools.golden import event_types

ROOT = Path(__file__).resolve().parents[3]
BUF = str(Path(sys.executable).with_name("buf"))
FULL = ReceivedEvent(
    id=UUID(int=1),
    type="t",
    source="s",
    subject="u",
    time=NOW,
    sequence=1,
    position=1,
    hlc=1,
    project="p",
    actor="a",
    on_behalf_of="b",
    causation_id=UUID(int=2),
    correlation_id=UUID(int=3),
    traceparent="00",
    data=b"",
    message=None,
)


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads((ROOT / "docs" / "asyncapi.json").read_text())


def test_asyncapi_has_every_topic_with_its_partitions(document: Any) -> None:
    said = {name: each["bindings"]["kafka"]["partitions"] for name, each in document["channels"].items()}

    assert said == {spec.name: spec.partitions for spec in PLATFORM_TOPICS}


def test_asyncapi_has_every_event_type(document: Any) -> None:
    assert set(document["components"]["messages"]) >= {type_name(each) for each in event_types()}


def test_asyncapi_has_every_header(document: Any) -> None:
    headers = document["components"]["messageTraits"]["cloudEvent"]["headers"]

    assert set(headers["properties"]) == {name for name, _ in to_headers(FULL, dataref="r")}
    assert headers["required"] == [name for name in headers["properties"] if name in headers["required"]]


def test_every_reference_of_asyncapi_leads_somewhere(document: Any) -> None:
    for reference in _references(document):
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("  string reason = 2;", "  string cause = 2;"),  # the JSON name
        ("  string reason = 2;", "  int64 reason = 2;"),
        ("  string reason = 2;", "  string reason = 7;"),
        ("message VersionArchived {", "message VersionStored {"),
    ],
)
def test_a_change_that_breaks_readers_is_refused(tmp_path: Path, before: str, after: str) -> None:
    protos = _copied(tmp_path)
    events = protos / "headrace" / "api" / "registry" / "v1" / "events.proto"
    head, opening, body = events.read_text().partition("message VersionArchived {")
    events.write_text(head + (opening + body).replace(before, after, 1))

    assert _breaking(tmp_path).returncode != 0


def test_a_field_may_be_added(tmp_path: Path) -> None:
    protos = _copied(tmp_path)
    events = protos / "headrace" / "api" / "registry" / "v1" / "events.proto"
    opening = "message VersionArchived {"
    events.write_text(events.read_text().replace(opening, f"{opening}\n  string more = 99;"))

    assert _breaking(tmp_path).stdout == ""


def _copied(folder: Path) -> Path:
    shutil.copytree(ROOT / "protos", folder / "protos")
    shutil.copy(ROOT / "buf.yaml", folder)
    return folder / "protos"


def _breaking(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [BUF, "breaking", "--against", "protos/baseline.binpb"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [each for value in node.values() for each in _references(value)]
    return [each for value in node for each in _references(value)] if isinstance(node, list) else []
