"""The command line on a running platform: every command that reads says the same as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from tests.support.eventually import eventually
from tests.support.platform import Platform

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]

Headrace = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def model(platform: Platform) -> str:
    """A model with two events; its id."""
    name = f"m-{uuid4().hex[:8]}"
    resource = f"projects/default/models/{name}"
    with platform.client() as client:
        client.registry.CreateModel(service.CreateModelRequest(command_id=str(uuid4()), name=resource))
        gates = resources.Gates(alias="production", required_checks=["quality"])
        client.registry.SetGates(service.SetGatesRequest(command_id=str(uuid4()), model=resource, gates=gates))
    return name


@pytest.fixture(scope="module")
def headrace(platform: Platform) -> Headrace:
    """Runs the command line against the platform."""
    environment = {**os.environ, "HEADRACE_DATA": str(platform.folder), "COLUMNS": "200", "NO_COLOR": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "headrace"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run


def events(headrace: Headrace, model: str) -> list[dict[str, object]]:
    """The model's events, once both have their places."""

    def read() -> list[dict[str, object]]:
        listed = headrace("log", "who", f"projects/default/models/{model}", "--json")
        assert listed.returncode == 0, listed.stderr
        found: list[dict[str, object]] = json.loads(listed.stdout)
        return found

    return eventually(read, lambda found: len(found) == 2 and all("position" in each for each in found))


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs", "list"),
        ("models", "list"),
        ("pipelines", "list"),
        ("pipelines", "runs"),
        ("endpoints", "list"),
        ("monitors", "list"),
        ("alerts", "list"),
        ("telemetry", "status"),
        ("telemetry", "ranges", "predictions", "0"),
        ("persons", "list"),
        ("log", "tail", "-n", "3"),
        ("log", "gaps"),
        ("log", "lag"),
        ("log", "parked"),
    ],
    ids=" ".join,
)
def test_what_is_listed_is_listed_as_json_too(headrace: Headrace, model: str, arguments: tuple[str, ...]) -> None:
    assert model
    people, machines = headrace(*arguments), headrace(*arguments, "--json")

    assert (people.returncode, machines.returncode) == (0, 0), people.stderr + machines.stderr
    assert people.stdout.strip()
    decoder, text = json.JSONDecoder(), machines.stdout.strip()
    while text:
        _, end = decoder.raw_decode(text)
        text = text[end:].strip()


def test_who_did_what_to_an_entity(headrace: Headrace, model: str) -> None:
    found = events(headrace, model)

    assert [str(each["type"]).rpartition(".")[2] for each in found] == ["ModelCreated", "GatesSet"]
    told = headrace("log", "who", f"projects/default/models/{model}").stdout
    assert told.count("persons/operator") == 2


def test_an_event_is_shown_and_its_chain_told(headrace: Headrace, model: str) -> None:
    first = str(events(headrace, model)[0]["event_id"])

    shown = json.loads(headrace("log", "show", first, "--json").stdout)
    chain = json.loads(headrace("log", "chain", first, "--json").stdout)

    assert shown["event_id"] == first
    assert [each["event_id"] for each in chain] == [first]
    assert first in headrace("log", "chain", first).stdout


def test_the_state_of_a_moment_and_what_changed_since(headrace: Headrace, model: str) -> None:
    created, gated = events(headrace, model)
    name = f"projects/default/models/{model}"

    before = headrace("log", "at", name, "--position", str(created["position"]), "--json")
    after = headrace("log", "at", name, "--time", str(gated["sequenced_at"]), "--json")
    now = headrace("log", "at", name)
    changed = headrace("log", "diff", str(created["recorded_at"]), str(gated["sequenced_at"]), "--json")

    assert "quality" not in before.stdout
    assert "quality" in after.stdout
    assert "quality" in now.stdout
    assert changed.returncode == 0, changed.stderr
    assert str(gated["event_id"]) in changed.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("log", "at", "projects/default/models/none"), "none"),
        (("log", "at", "nonsense"), "nonsense"),
        (("log", "at", "projects/default/models/none", "--time", "yesterday"), "--time"),
        (("log", "diff", "2026-01-02T00:00:00Z", "soon"), "soon"),
        (("log", "redrive", "nobody", "projects/default/models/none"), "nobody"),
        (("log", "show", "7"), "event_id"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_named(headrace: Headrace, arguments: tuple[str, ...], named: str) -> None:
    refused = headrace(*arguments)

    assert refused.returncode != 0
    assert named in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
