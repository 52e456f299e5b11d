"""A person is erased with one command, the archive verifies, and no personal value is where it must not be."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.api.audit.v1.service_pb2 import ReadLogRequest
from headrace.api.common.v1.telemetry_pb2 import PredictionBatch
from headrace.api.monitor.v1 import service_pb2 as monitor
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.client import Client
from headrace.connection import SERVICES
from headrace.errors import HeadraceError, Unauthenticated
from headrace.kafka import ColumnData, encode_labels, encode_predictions, new_id
from headrace.kafka.reading import TopicReader
from headrace_kit.log.topics import LOG_OWNERS
from tests.support.platform import Platform
from tests.support.telemetry import HOUR_US, World

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

NAME = "Planted Person <planted.person@example.org>"
NEEDLES = ("Planted Person", "planted.person@example.org", "planted-token", "planted-feature")
Headrace = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def headrace(platform: Platform) -> Headrace:
    environment = {**os.environ, "HEADRACE_DATA": str(platform.folder), "COLUMNS": "220", "NO_COLOR": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "headrace"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    return run


def batch(world: World, person: str, *, seq: int) -> PredictionBatch:
    """Predictions about two people, by a column of theirs."""
    x = np.arange(2, dtype="<f8")
    body = world.predictions([new_id(5), new_id(5)], x, x, times_us=[HOUR_US] * 2, shard=5)
    customer = ColumnData.of("customer", ["planted-feature-4711", "somebody"])
    subject = ColumnData.of("person", [person, ""])
    whole = replace(body, columns=[*body.columns, customer, subject])
    return encode_predictions(whole, producer_id=f"app-{world.endpoint}", epoch=1, seq=seq)


def publish(client: Client, world: World, person: str) -> PredictionBatch:
    sent = batch(world, person, seq=1)
    client.telemetry.PublishPredictions(monitor.PublishPredictionsRequest(batches=[sent]))
    labels = world.labels(list(sent.ids), [0, 0], np.ones(2), time_us=HOUR_US, shard=5)
    known = encode_labels(labels, producer_id=f"app-{world.endpoint}", epoch=1, seq=1)
    client.telemetry.PublishLabels(monitor.PublishLabelsRequest(batches=[known]))
    return sent


def refusals(platform: Platform, world: World) -> Iterator[str]:
    """What the platform says of requests that hold what is planted, and are wrong."""
    wrong = batch(world, "persons/x", seq=2)
    wrong.schema_digest = "0" * 64
    late = batch(world, "persons/x", seq=3)
    late.columns[2].values = late.columns[2].values[:-1]
    for each in (wrong, late):
        with pytest.raises(HeadraceError) as refused, platform.client() as client:
            client.telemetry.PublishPredictions(monitor.PublishPredictionsRequest(batches=[each]))
        yield repr(refused.value) + str(refused.value)
    with pytest.raises(HeadraceError) as refused, platform.client() as client:
        client.persons.AddPerson(registry.AddPersonRequest(command_id=NAME, display_name=NAME + "\n"))
    yield repr(refused.value)
    stranger = replace(platform.connection, token="planted-token-0815")
    with pytest.raises(Unauthenticated) as unknown, Client(stranger) as client:
        client.persons.ListPersons(registry.ListPersonsRequest())
    yield repr(unknown.value)
    tensor = {"name": "planted-feature", "shape": [1], "datatype": "BYTES", "data": ["planted-feature-4711"]}
    request = urllib.request.Request(
        f"{platform.connection.serving_url}/v2/models/{world.endpoint}/infer",
        data=json.dumps({"inputs": [tensor]}).encode(),
        headers={"authorization": f"Bearer {platform.connection.token}", "content-type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as missing:
        urllib.request.urlopen(request, timeout=30)
    yield missing.value.read().decode()


def everything_said(platform: Platform) -> Iterator[tuple[str, bytes]]:
    """Where something was said, and its bytes: every event, every record of the event topics, every log file."""
    with platform.client() as client:
        for name in SERVICES:
            position, end = 1, False
            while not end:
                page = client.log(name).ReadLog(ReadLogRequest(from_position=position, page_size=1000))
                for entry in page.entries:
                    yield f"{name} {entry.type}", entry.SerializeToString()
                position, end = page.next_position, page.end_of_log
    for name in LOG_OWNERS:
        for record in asyncio.run(records(platform.connection.kafka_bootstrap, f"headrace.{name}.events.v1")):
            yield f"{name}'s topic", record
    logs = [each for each in (platform.folder / "logs").rglob("*") if each.is_file()]
    assert len(logs) > 7
    for path in logs:
        yield path.name, path.read_bytes()


async def records(bootstrap: str, topic: str) -> list[bytes]:
    found: list[bytes] = []
    async with TopicReader(bootstrap, topic) as reader:
        for partition, bound in (await reader.bounds()).items():
            if bound.first < bound.end:
                read = await reader.read(partition, offset=bound.first, end=bound.end, max_bytes=2**30)
                found += [repr(each).encode() + b"".join(value or b"" for _, value in each.headers) for each in read]
                found += [each.value or b"" for each in read]
    return found


def leaks(said: Iterator[tuple[str, bytes]], needles: tuple[str, ...]) -> list[str]:
    return [f"{needle} in {where}" for where, data in said for needle in needles if needle.encode() in data]


def test_no_personal_value_is_in_an_event_a_header_a_log_line_or_an_error(
    platform: Platform, headrace: Headrace
) -> None:
    world = World()
    added = headrace("persons", "add", NAME, "--json")
    assert added.returncode == 0, added.stderr
    person = json.loads(added.stdout)["name"]
    assert NAME in headrace("persons", "list", "--json").stdout
    with platform.client() as client:
        publish(client, world, person)
    errors = list(refusals(platform, world))
    erased = headrace("log", "erase", person, "--where", "customer=planted-feature-4711", "--endpoint", world.endpoint)
    assert erased.returncode == 0, erased.stderr

    assert [each for each in errors for needle in NEEDLES if needle in each] == []
    own = platform.connection.token
    assert leaks(everything_said(platform), (*NEEDLES, own)) == []
    assert leaks(iter([("itself", NAME.encode())]), NEEDLES) != []  # what is looked for would be found


def test_an_erased_person_is_gone_and_the_archive_verifies(platform: Platform, headrace: Headrace) -> None:
    world = World()
    person = json.loads(headrace("persons", "add", "Ada", "--json").stdout)["name"]
    with platform.client() as client:
        sent = publish(client, world, person)

    erased = headrace("log", "erase", person, "--json")

    assert erased.returncode == 0, erased.stderr
    assert json.loads(erased.stdout)["predictions_erased"] == "1"
    assert json.loads(erased.stdout)["labels_erased"] == "1"
    for kind in ("predictions", "labels"):
        read = headrace("telemetry", "read", kind, "--endpoint", world.endpoint)
        assert read.returncode == 0, read.stderr
        assert [json.loads(each)["prediction_id"] for each in read.stdout.splitlines()] == [sent.ids[1]]
    verified = headrace("telemetry", "verify", "--json")
    assert verified.returncode == 0, verified.stdout
    roots = [root for each in json.loads(verified.stdout) for root in each["erased"] if root["person"] == person]
    assert [(each["reason"], each["rows"]) for each in roots] == [("erasure", 1), ("erasure", 1)]
    assert "Ada" not in headrace("persons", "list", "--json").stdout
    chain = headrace("log", "show", roots[0]["event_id"])
    assert chain.returncode == 0, chain.stderr
    assert person in chain.stdout


def test_an_altered_range_does_not_verify(platform: Platform, headrace: Headrace) -> None:
    world = World()
    with platform.client() as client:
        publish(client, world, "persons/nobody")
    assert headrace("log", "erase", "persons/nobody").returncode == 0
    [altered] = [each for each in json.loads(headrace("telemetry", "verify", "--json").stdout) if each["erased"]][-1:]
    with platform.client() as client:
        files = client.archive.GetArchivedRange(monitor.GetArchivedRangeRequest(name=altered["range"])).files
    [path] = [each for each in platform.folder.rglob(files[0].object.sha256) if each.is_file()]
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    try:
        verified = headrace("telemetry", "verify", "--json")
    finally:
        path.write_bytes(whole)

    assert verified.returncode == 1
    faults = {each["range"]: each["fault"] for each in json.loads(verified.stdout) if each["fault"]}
    assert list(faults) == [altered["range"]]
    assert headrace("telemetry", "verify").returncode == 0
