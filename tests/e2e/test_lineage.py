"""Lineage across the services, both ways, as commands, programs and the console ask for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace.client import Client
from headrace.errors import InvalidArgument, NotFound
from headrace.lineage import Lineage, lineage
from tests.support.openlineages import require_run_event
from tests.support.platform import Platform
from tests.support.serving import command_id
from tests.support.world import DATASET, World, build

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[Client]:
    with platform.client() as operator:
        yield operator


@pytest.fixture(scope="module")
def world(client: Client, platform: Platform) -> World:
    """Its second version came of the run, is approved, and is in production."""
    with Client(platform.connection_of("orchestrator")) as author:
        made = build(client, author, f"t-{uuid4().hex[:12]}")
        client.tracking.LogDataset(tracking.LogDatasetRequest(command_id=command_id(), run=made.run, dataset=DATASET))
        version = made.valid("headrace.api.registry.v1.RegistryService.CreateVersion")
        assert isinstance(version, registry.CreateVersionRequest)
        version.run, version.logged_model = made.run, made.logged_model
        author.registry.CreateVersion(version)
    third = f"{made.model}/versions/3"
    review = registry.ReviewVersionRequest(command_id=command_id(), version=third, approve=True, reason="looked at it")
    client.registry.ReviewVersion(review)
    move = registry.PromoteVersionRequest(
        command_id=command_id(), version=third, alias="staging", expected_revision=-1, reason="to be tried"
    )
    client.registry.PromoteVersion(move)
    return made


def told(found: Lineage) -> set[tuple[str, str, str]]:
    kinds = {each.name: each.kind for each in found.nodes}
    return {(kinds[each.source], each.relation, kinds[each.target]) for each in found.edges}


def headrace(platform: Platform, *arguments: str) -> str:
    environment = {**os.environ, "HEADRACE_DATA": str(platform.folder), "NO_COLOR": "1", "COLUMNS": "200"}
    command = [str(Path(sys.executable).parent / "headrace"), "lineage", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_upstream_of_an_alias_is_its_word_its_version_its_run_and_its_data(client: Client, world: World) -> None:
    found = lineage(client, f"{world.model}@staging", direction="upstream")

    assert told(found) == {
        ("promotion", "set", "alias"),
        ("version", "moved by", "promotion"),
        ("approval", "allowed", "promotion"),
        ("version", "approved", "approval"),
        ("run", "registered as", "version"),
        ("logged model", "registered as", "version"),
        ("dataset", "read by", "run"),
        ("dataset", "trained", "version"),
    }
    move = next(each for each in found.nodes if each.kind == "promotion")
    assert (move.actor, move.detail, move.distance) == ("persons/operator", "to be tried", -1)
    assert not found.cut
    assert not found.lacking


def test_downstream_of_a_dataset_reaches_the_monitor(client: Client, world: World) -> None:
    name = f"{world.parent}/datasets/{DATASET.name}@{DATASET.digest}"
    found = lineage(client, name, direction="downstream")

    assert {
        ("dataset", "read by", "run"),
        ("dataset", "trained", "version"),
        ("version", "moved by", "promotion"),
        ("promotion", "set", "alias"),
        ("alias", "followed by", "endpoint"),
        ("version", "answers", "endpoint"),
        ("endpoint", "answered with", "predictions"),
        ("predictions", "watched by", "monitor"),
    } <= told(found)
    assert all(each.distance >= 0 for each in found.nodes)


def test_depth_and_number_are_limits_that_are_told(client: Client, world: World) -> None:
    near = lineage(client, world.endpoint, direction="upstream", depth=1)
    assert {each.distance for each in near.nodes} == {0, -1}
    assert near.cut
    few = lineage(client, world.endpoint, most=3)
    assert len(few.nodes) == 3
    assert few.cut


def test_a_model_stands_for_its_versions(client: Client, world: World) -> None:
    found = lineage(client, world.model, depth=1)
    assert {each.label for each in found.nodes if each.distance == 0} == {"delays v1", "delays v2", "delays v3"}


@pytest.mark.parametrize(
    "name", ["", "delays", "projects/default/models", "projects/p/endpoints/e/x", "projects/p/models/m@a/moves/x"]
)
def test_what_is_no_entity_is_refused(client: Client, name: str) -> None:
    with pytest.raises(InvalidArgument, match="ENTITY"):
        lineage(client, name)


@pytest.mark.parametrize("rest", ["models/none", "models/delays@none", "models/delays/versions/99", "runs/none"])
def test_what_is_not_there_is_not_found(client: Client, world: World, rest: str) -> None:
    with pytest.raises(NotFound):
        lineage(client, f"{world.parent}/{rest}")


def test_a_service_that_does_not_run_is_named(platform: Platform, world: World) -> None:
    connection = platform.connection
    rest = {name: address for name, address in connection.addresses.items() if name != "monitor"}
    with Client(replace(connection, addresses=rest)) as part:
        found = lineage(part, world.endpoint)
    assert found.lacking == ("monitor",)
    assert "predictions" in {each.kind for each in found.nodes}


def test_from_the_command_line(platform: Platform, world: World) -> None:
    text = headrace(platform, f"{world.model}@staging")
    for word in ("came of", "led to", "promotion to staging", "delays v3", "by persons/operator", "flights"):
        assert word in text, text
    found = json.loads(headrace(platform, f"{world.model}@staging", "--json"))
    assert {each["kind"] for each in found["nodes"]} >= {"alias", "version", "run", "dataset"}


def test_openlineage_events_are_valid_and_connected(platform: Platform, world: World) -> None:
    lines = headrace(platform, world.endpoint, "--openlineage").splitlines()
    events = [json.loads(each) for each in lines]
    for event in events:
        require_run_event(event)
    assert [each["eventTime"] for each in events] == sorted(each["eventTime"] for each in events)
    written = {(each["namespace"], each["name"]) for event in events for each in event["outputs"]}
    read = {(each["namespace"], each["name"]) for event in events for each in event["inputs"]}
    model = (f"headrace://{world.project}", "models/delays")
    assert model in read
    assert (model[0], "models/delays@production") in read & written
    assert (model[0], "endpoints/delays/predictions") in read & written


def test_the_gateway_answers_programs(platform: Platform, world: World) -> None:
    own = platform.connection
    with httpx2.Client(base_url=own.gateway_url, headers={"authorization": f"Bearer {own.token}"}) as http:
        given = {"entity": f"{world.model}@staging", "direction": "upstream"}
        answer = http.get("/api/v1/lineage", params=given)
        assert answer.status_code == 200, answer.text
        assert {each["kind"] for each in answer.json()["nodes"]} >= {"alias", "version", "run", "dataset"}
        events = http.get("/api/v1/lineage", params={"entity": world.endpoint, "format": "openlineage"})
        for line in events.text.splitlines():
            require_run_event(json.loads(line))
        refused = http.get("/api/v1/lineage", params={"entity": "nonsense"})
        assert (refused.status_code, refused.json()["reason"]) == (400, "INVALID_ARGUMENT")
        for bad in ({"direction": "sideways"}, {"depth": "0"}, {"depth": "x"}, {"format": "x"}):
            assert http.get("/api/v1/lineage", params={"entity": world.model, **bad}).status_code == 400
        missing = http.get("/api/v1/lineage", params={"entity": f"{world.parent}/models/none"})
        assert missing.status_code == 404
    with httpx2.Client(base_url=own.gateway_url) as stranger:
        assert stranger.get("/api/v1/lineage", params={"entity": world.model}).status_code == 401
