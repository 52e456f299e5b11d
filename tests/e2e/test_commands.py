"""The command line on a running platform: every command that reads says the same as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.audit.v1.service_pb2 import ReadStreamRequest
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.serving.v1.service_pb2 import CreateEndpointRequest
from headrace_kit.rpc.call import CAUSATION
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
        ("traces", "list"),
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


def test_who_says_by_which_command_and_why(headrace: Headrace, platform: Platform) -> None:
    name = f"projects/default/models/m-{uuid4().hex[:8]}"
    approval = resources.StandingApproval(
        id="nightly", alias="production", grantees=["services/serving"], reason="nights and weekends"
    )
    approval.expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=1))
    with platform.client() as client:
        client.registry.CreateModel(service.CreateModelRequest(command_id=str(uuid4()), name=name))
        client.registry.GrantStandingApproval(
            service.GrantStandingApprovalRequest(command_id=str(uuid4()), model=name, standing_approval=approval)
        )

    found = json.loads(headrace("log", "who", name, "--json").stdout)
    told = headrace("log", "who", name).stdout
    of_alias = json.loads(headrace("log", "who", f"{name}@production", "--json").stdout)

    assert [each["reason"] for each in found] == ["", "nights and weekends"]
    assert found[0]["meta"]["method"] == "/headrace.api.registry.v1.RegistryService/CreateModel"
    assert found[1]["data"]["standing_approval"]["id"] == "nightly"
    assert "GrantStandingApproval" in told
    assert of_alias == found[1:]


def test_a_model_is_renamed(headrace: Headrace, platform: Platform, project: str) -> None:
    at = ("--project", project)
    with platform.client() as client:
        for model in ("a", "other"):
            name = f"projects/{project}/models/{model}"
            client.registry.CreateModel(service.CreateModelRequest(command_id=str(uuid4()), name=name))

    renamed = headrace("models", "rename", "a", "Late flights", *at)
    taken = headrace("models", "rename", "other", "Late flights", *at)

    assert renamed.stdout.strip() == f"projects/{project}/models/a is called Late flights"
    assert taken.returncode != 0
    assert "another model of the project has this name" in taken.stdout + taken.stderr
    assert "Late flights" in headrace("models", "list", *at).stdout
    assert f"projects/{project}/models/a, called Late flights" in headrace("models", "show", "a", *at).stdout
    listed = json.loads(headrace("log", "who", f"projects/{project}/models/a", "--json").stdout)
    assert listed[1]["data"]["display_name"] == "Late flights"


def test_a_chain_is_told_over_services(headrace: Headrace, platform: Platform, project: str) -> None:
    model = f"projects/{project}/models/m"
    with platform.client() as client:

        def written(stream: str, name: str) -> str:
            request = ReadStreamRequest(stream_id=stream)
            return client.log(name).ReadStream(request).entries[-1].event_id

        client.registry.CreateModel(service.CreateModelRequest(command_id=str(uuid4()), name=model))
        first = written(model, "registry")
        endpoint = f"projects/{project}/endpoints/e"
        client.serving.CreateEndpoint(
            CreateEndpointRequest(command_id=str(uuid4()), name=endpoint, model=model, alias="production"),
            metadata=((CAUSATION, first),),
        )
        second = written(endpoint, "serving")
        gates = resources.Gates(alias="production", required_checks=["quality"])
        client.registry.SetGates(
            service.SetGatesRequest(command_id=str(uuid4()), model=model, gates=gates), metadata=((CAUSATION, second),)
        )
        third = written(model, "registry")

    for each in (first, second, third):
        told = json.loads(headrace("log", "chain", each, "--json").stdout)
        assert [(link["event_id"], link["depth"]) for link in told] == [(first, 0), (second, 1), (third, 2)]
    cut = headrace("log", "chain", third, "--most", "2", "--json")
    assert [link["event_id"] for link in json.loads(cut.stdout)] == [second, third]
    assert "more than 2" in cut.stderr


def test_a_diff_names_each_change_of_each_event(headrace: Headrace, platform: Platform, project: str) -> None:
    model = f"projects/{project}/models/m"
    with platform.client() as client:

        def sequenced(count: int) -> list[LogEntry]:
            """So many events of the model; what is written afterwards has a later time."""
            return eventually(
                lambda: list(client.log("registry").ReadStream(ReadStreamRequest(stream_id=model)).entries),
                lambda found: len(found) == count and all(each.leaf for each in found),
            )

        client.registry.CreateModel(service.CreateModelRequest(command_id=str(uuid4()), name=model))
        for count, check in enumerate(("quality", "latency"), start=1):
            sequenced(count)
            gates = resources.Gates(alias="production", required_checks=[check])
            client.registry.SetGates(service.SetGatesRequest(command_id=str(uuid4()), model=model, gates=gates))
        created, first, second = sequenced(3)

    start, end = (each.sequenced_at.ToJsonString() for each in (created, second))
    changed = headrace("log", "diff", start, end, "--project", project, "--json")
    everything = headrace("log", "diff", "2000-01-01T00:00:00Z", end, "--project", project, "--json")

    assert changed.returncode == 0, changed.stderr
    told = [
        (each["event_id"], each["before"], each["after"])
        for each in json.loads(changed.stdout)
        if each["field"].endswith("required_checks[0]")
    ]
    assert told == [(first.event_id, None, "quality"), (second.event_id, "quality", "latency")]
    assert created.event_id in {each["event_id"] for each in json.loads(everything.stdout)}


def test_lag_tells_how_far_behind_each_consumer_is(headrace: Headrace) -> None:
    def read() -> dict[str, Any]:
        logs = json.loads(headrace("log", "lag", "--json").stdout)
        return {each["consumer"]: each for log in logs for each in log["consumers"]}

    found = eventually(read, lambda found: bool(found) and all(each["behind"] == 0 for each in found.values()))
    told = headrace("log", "lag").stdout

    assert "registry.rollback" in found
    assert {part["source"] for part in found["registry.rollback"]["partitions"]} == {"headrace/monitor"}
    assert all(name in told for name in found)


def test_a_tail_goes_on_when_a_service_is_killed_and_comes_back(
    headrace: Headrace, platform: Platform, project: str
) -> None:
    def create(name: str) -> None:
        with platform.client() as client:
            request = service.CreateModelRequest(command_id=str(uuid4()), name=f"projects/{project}/models/{name}")
            client.registry.CreateModel(request)

    create("before")
    eventually(lambda: "before" in headrace("log", "tail", "--project", project).stdout)
    command = [str(Path(sys.executable).parent / "headrace"), "log", "tail", "-f", "--project", project]
    environment = {**os.environ, "HEADRACE_DATA": str(platform.folder), "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as tailing:
        assert tailing.stdout is not None
        try:
            assert "models/before" in tailing.stdout.readline()
            create("first")
            assert "models/first" in tailing.stdout.readline()
            killed = platform.kill("registry")
            platform.wait_ready("registry", other_than=killed)
            create("second")
            assert "models/second" in tailing.stdout.readline()
            assert tailing.poll() is None
        finally:
            tailing.kill()
