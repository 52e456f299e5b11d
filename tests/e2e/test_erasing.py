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
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from headrace.api.audit.v1.service_pb2 import GetLogStatusRequest, GetTreeRequest, ReadLogRequest, StateAtRequest
from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.common.v1.telemetry_pb2 import PredictionBatch
from headrace.api.monitor.v1 import service_pb2 as monitor
from headrace.api.monitor.v1.resources_pb2 import ArchivedRange
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.registry.v1.resources_pb2 import Person
from headrace.client import Client
from headrace.connection import SERVICES
from headrace.errors import HeadraceError, Unauthenticated
from headrace.kafka import ColumnData, encode_labels, encode_predictions, new_id
from headrace.kafka.reading import TopicReader
from headrace_kit.log.topics import LOG_OWNERS
from headrace_local import accounts, psql
from tests.support.eventually import eventually
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


def test_the_log_is_sound_after_an_erasure_and_folds_to_the_same_states_without_the_person(
    platform: Platform, headrace: Headrace
) -> None:
    world = World()
    person = json.loads(headrace("persons", "add", "Planted Again", "--json").stdout)["name"]
    with platform.client() as client:
        publish(client, world, person)
        trees = {name: tree(client, name) for name in SERVICES}

        erased = headrace("log", "erase", person)
        verified = headrace("log", "verify", "--json")

        assert erased.returncode == 0, erased.stderr
        assert verified.returncode == 0, verified.stdout
        verdicts = {each["service"]: each for each in json.loads(verified.stdout)}
        assert verdicts["monitor"]["archived_ranges"] >= 2
        assert all(each["sound"] and each["entries"] == each["last"] for each in verdicts.values())
        assert [name for name, (size, _) in trees.items() if size]
        for name, (size, root) in trees.items():
            assert not size or client.log(name).GetTree(GetTreeRequest(size=size)).root == root
        touched = [each for each in ranges(client) if any(rewrite.person == person for rewrite in each.rewrites)]
        assert {each.topic.split(".")[2] for each in touched} == {"predictions", "labels"}
        for each in touched:
            folded = ArchivedRange()
            assert folded_from_the_log(client, "monitor", each.name).Unpack(folded)
            assert folded == each
        known = Person()
        assert folded_from_the_log(client, "registry", f"projects/headrace/{person}").Unpack(known)
        assert (known.name, known.display_name, known.HasField("erase_time")) == (person, "", True)
        assert person not in [each.name for each in client.persons.ListPersons(registry.ListPersonsRequest()).persons]
    assert leaks(everything_said(platform), ("Planted Again",)) == []
    assert "Planted Again" not in headrace("log", "who", f"projects/headrace/{person}").stdout


def tree(client: Client, name: str) -> tuple[int, bytes]:
    """Size and root of a service's log."""

    def stored() -> tuple[int, bytes] | None:
        try:
            found = client.log(name).GetTree(GetTreeRequest())
        except grpc.RpcError:  # the tree is behind the log for a moment
            return None
        return found.size, found.root

    found = eventually(stored, lambda found: found is not None)
    assert found is not None
    return found


def ranges(client: Client) -> list[ArchivedRange]:
    """Every archived range as it is served."""
    found: list[ArchivedRange] = []
    for each in client.archive.GetArchiveStatus(monitor.GetArchiveStatusRequest()).partitions:
        request = monitor.ListArchivedRangesRequest(topic=each.topic, partition=each.partition, page_size=1000)
        found += client.archive.ListArchivedRanges(request).ranges
    return found


def folded_from_the_log(client: Client, service: str, stream: str) -> Any:
    """The state of a stream from its events alone, as an ``Any``."""
    log = client.log(service)
    last = log.GetLogStatus(GetLogStatusRequest()).last_position
    return log.StateAt(StateAtRequest(stream_id=stream, position=last)).state


@pytest.fixture(scope="module")
def archived(platform: Platform) -> monitor.GetArchivedRangeResponse:
    """An archived range and its files."""
    environment = {**os.environ, "HEADRACE_DATA": str(platform.folder)}
    command = [str(Path(sys.executable).parent / "headrace"), "log", "erase", "persons/nobody"]
    with platform.client() as client:
        publish(client, World(), "persons/nobody")
        subprocess.run(command, env=environment, capture_output=True, timeout=120, check=True)
        name = next(each.name for each in ranges(client) if each.rewrites)
        return client.archive.GetArchivedRange(monitor.GetArchivedRangeRequest(name=name))


def stored(platform: Platform, reference: ObjectRef) -> Path:
    """Where the object store keeps an object."""
    [path] = [each for each in (platform.folder / "s3").rglob(reference.sha256) if each.is_file()]
    return path


@contextmanager
def damaged(path: Path, *, missing: bool) -> Iterator[None]:
    """A file with one bit turned, or taken away, for a while."""
    whole = path.read_bytes()
    if missing:
        path.unlink()
    else:
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    try:
        yield
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("missing", [False, True], ids=["altered", "missing"])
@pytest.mark.parametrize("kind", ["manifest", "records", "rows"])
def test_a_damaged_file_of_the_archive_is_named(
    platform: Platform, headrace: Headrace, archived: monitor.GetArchivedRangeResponse, kind: str, missing: bool
) -> None:
    files = {"manifest": archived.range.manifest, **{each.kind: each.object for each in archived.files}}
    with damaged(stored(platform, files[kind]), missing=missing):
        verified = headrace("log", "verify", "--service", "monitor", "--json")

    assert verified.returncode == 1
    assert verified.stdout, verified.stderr
    [verdict] = json.loads(verified.stdout)
    [problem] = verdict["problems"]
    assert (problem["kind"], verdict["sound"]) == ("archive", False)
    assert problem["cause"].startswith(f"{archived.range.name}: ")
    assert files[kind].uri in problem["cause"]


def test_the_archive_is_verified_with_the_log_or_alone_or_left_out(
    platform: Platform, headrace: Headrace, archived: monitor.GetArchivedRangeResponse
) -> None:
    file = archived.files[0].object
    with damaged(stored(platform, file), missing=False):
        told = headrace("log", "verify")
        alone = headrace("telemetry", "verify", "--json")
        without = headrace("log", "verify", "--without-archive")
        registry_alone = headrace("log", "verify", "--service", "registry")

    assert [each.returncode for each in (told, alone, without, registry_alone)] == [1, 1, 0, 0], told.stdout
    assert f"archive: {archived.range.name}: {file.uri} does not hold" in told.stdout
    assert [each["range"] for each in json.loads(alone.stdout) if each["faults"]] == [archived.range.name]
    assert headrace("log", "verify").returncode == 0
    assert headrace("telemetry", "verify").returncode == 0


def test_a_range_that_no_event_speaks_of_is_named(
    platform: Platform, headrace: Headrace, archived: monitor.GetArchivedRangeResponse
) -> None:
    name = archived.range.name
    stranger = f"{name[:-20]}{10**15:020}"
    where = platform.addresses.postgres_dsn.rpartition("/")[0] + "/headrace_monitor"
    program = accounts.binaries(user=None) / "psql"
    state = f"decode(replace(encode(state, 'hex'), encode('{name}', 'hex'), encode('{stranger}', 'hex')), 'hex')"
    add = f"""
        INSERT INTO streams (stream_id, aggregate, version, hlc, revision, state)
        SELECT '{stranger}', aggregate, version, hlc, revision, {state} FROM streams WHERE stream_id = '{name}';
        INSERT INTO archived_ranges
        SELECT '{stranger}', topic, partition, {10**15}, {10**15} + 9, records, rows, size_bytes, last_time
        FROM archived_ranges WHERE name = '{name}';
    """
    platform.call(psql.execute(program, where, add))
    try:
        whole = headrace("log", "verify", "--service", "monitor", "--json")
        alone = headrace("telemetry", "verify", "--json")
        part = headrace("log", "verify", "--service", "monitor", "--from", "2")
    finally:
        for table, column in (("archived_ranges", "name"), ("streams", "stream_id")):
            platform.call(psql.execute(program, where, f"DELETE FROM {table} WHERE {column} = '{stranger}';"))

    assert [each.returncode for each in (whole, alone, part)] == [1, 1, 0], part.stdout
    assert whole.stdout, whole.stderr
    [problem] = json.loads(whole.stdout)[0]["problems"]
    assert problem["cause"] == f"{stranger}: it is served, and no event of the log speaks of it"
    assert [each["range"] for each in json.loads(alone.stdout) if each["faults"]] == [stranger]
    assert headrace("telemetry", "verify").returncode == 0
