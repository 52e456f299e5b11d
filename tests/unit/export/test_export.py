"""``headrace log export`` on real servers of logs in memory."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from headrace import errors
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.registry.v1.events_pb2 import VersionPromoted
from headrace.cli import build
from headrace.export import parquet
from headrace.export.leaves import columns_of
from headrace.export.writers import Format
from headrace.merkle import Range
from headrace_kit.logmessages import entry_message
from tests.support.subscribing import Logs, content_of, served_logs


@pytest.fixture
async def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Logs]:
    monkeypatch.setenv("HEADRACE_DATA", str(tmp_path / "nothing"))
    async with served_logs(tmp_path, "monitor", "registry") as served:
        for name, value in served.environment.items():
            monkeypatch.setenv(name, value)
        for number in range(1, 21):  # each a second after the one before
            await (served.promote(str(number)) if number % 2 else served.raise_alert(str(number)))
        yield served


async def headrace(*arguments: str | Path) -> None:
    """Runs the command line."""
    await asyncio.to_thread(build(), [str(each) for each in arguments], standalone_mode=False)


def manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """What it says of each service's file."""
    content = orjson.loads((folder / "manifest.json").read_bytes())
    for each in content["files"]:
        assert hashlib.sha256((folder / each["file"]).read_bytes()).hexdigest() == each["sha256"]
        assert (folder / each["file"]).stat().st_size == each["bytes"]
    return {each["service"]: each for each in content["files"]}


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(each) for each in path.read_bytes().splitlines()]


async def entries(logs: Logs, service: str) -> list[LogEntry]:
    return [entry_message(each) for each in await logs.servers[service].store.read_log(1, 1000)]


@pytest.mark.parametrize("kind", list(Format))
async def test_the_same_range_gives_the_same_bytes(logs: Logs, tmp_path: Path, kind: Format) -> None:
    command = ("log", "export", "--format", kind, "--to", "2026-03-01T12:00:13Z", "-o")
    await headrace(*command, tmp_path / "a")
    await logs.promote("later")
    await headrace(*command, tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(["manifest.json", *(f"{name}{kind.suffix}" for name in ("monitor", "registry"))])
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    found = manifest(tmp_path / "a")
    assert (found["registry"]["count"], found["monitor"]["count"]) == (6, 6)
    log = await entries(logs, "registry")
    tree = Range()
    tree.extend(each.leaf for each in log[:6])
    assert (found["registry"]["last_leaf"], found["registry"]["root"]) == (log[5].leaf.hex(), tree.root().hex())
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []  # noqa: ASYNC240


async def test_cloudevents_are_of_the_structured_mode(logs: Logs, tmp_path: Path) -> None:
    await headrace("log", "export", "--format", "cloudevents", "--service", "registry", "-o", tmp_path / "a")
    found = lines(tmp_path / "a" / "registry.cloudevents.jsonl")
    stored = await entries(logs, "registry")
    assert len(found) == len(stored) == 10
    for event, entry in zip(found, stored, strict=True):
        assert event["specversion"] == "1.0"
        assert (event["id"], event["source"], event["type"]) == (entry.event_id, entry.source, entry.type)
        assert datetime.fromisoformat(event["time"]).tzinfo
        assert event["datacontenttype"] == "application/protobuf"
        assert "data" not in event
        assert b64decode(event["data_base64"], validate=True) == entry.data
        assert all(name.isalnum() and name.islower() for name in event.keys() - {"data_base64"})
        assert all(isinstance(value, str) and value for value in event.values())


async def test_json_lines_show_the_event_and_keep_its_bytes(logs: Logs, tmp_path: Path) -> None:
    await headrace("log", "export", "--service", "registry", "--from", "3", "--to", "5", "-o", tmp_path / "a")
    found = lines(tmp_path / "a" / "registry.jsonl")
    assert [each["position"] for each in found] == [3, 4]
    assert found[0]["message"]["version"] == "projects/default/models/m/versions/5"
    assert VersionPromoted.FromString(b64decode(found[0]["data_base64"])).version == found[0]["message"]["version"]


async def test_parquet_has_every_column(logs: Logs, tmp_path: Path) -> None:
    start = "2026-03-01T14:00:11+02:00"
    await headrace("log", "export", "--format", "parquet", "--from", start, "-o", tmp_path / "a")
    await headrace("log", "export", "--format", "jsonl", "--from", start, "-o", tmp_path / "b")
    table: Any = pq.read_table(tmp_path / "a" / "registry.parquet")
    assert table.schema.names == parquet.SCHEMA.names
    found = table.to_pylist()
    told = lines(tmp_path / "b" / "registry.jsonl")
    assert len(found) == len(told) == 5
    for row, line in zip(found, told, strict=True):
        line |= {"data": b64decode(line.pop("data_base64")), "leaf": bytes.fromhex(line["leaf"])}
        line |= {name: datetime.fromisoformat(line[name]) for name in line if name.endswith("_at")}
        del line["message"]
        assert row == line
    assert found[0]["sequenced_at"].isoformat() == "2026-03-01T12:00:11+00:00"
    assert found[0]["actor"] == "persons/operator"


async def test_groups_of_rows_are_cut_by_the_events_alone(
    logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 100)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 14_000)
    [entry, *_] = await logs.servers["registry"].store.read_log(1, 1)
    rows = [
        content_of(replace(entry, position=n, event=replace(entry.event, data=b"x" * (n % 97)))) for n in range(1, 1001)
    ]
    found: set[bytes] = set()
    path = tmp_path
    for size in (1, 7, 100, 1000):
        path = tmp_path / f"{size}.parquet"
        with parquet.ParquetWriter(path) as writer:
            for at in range(0, len(rows), size):
                writer.write(rows[at : at + size], bytes(parquet.LEAF * len(rows[at : at + size])))
        found.add(path.read_bytes())
    groups = [pq.ParquetFile(path).metadata.row_group(each).num_rows for each in range(12)]
    assert len(found) == 1
    assert max(groups) <= 100
    assert len(set(groups[:-1])) > 1  # some were ended by their bytes


@pytest.mark.parametrize("fault", ["", "\x02", "cut", "more", "length"])
async def test_leaf_bytes_that_are_none_are_refused(logs: Logs, fault: str) -> None:
    stored = await logs.servers["registry"].store.read_log(1, 2)
    whole, other = (content_of(each) for each in stored)
    broken = {
        "cut": whole[:-1],
        "more": whole + b"\0",
        "length": whole.replace(bytes((0, 0, 0, 8)), bytes((0, 0, 0, 9))),
    }
    with pytest.raises(errors.InternalError, match="leaf bytes"):
        columns_of([other, broken.get(fault, fault.encode())])


async def test_an_empty_range_is_an_export_too(logs: Logs, tmp_path: Path) -> None:
    for kind in Format:
        folder = tmp_path / kind
        await headrace("log", "export", "--format", kind, "--from", "2027-01-01T00:00:00Z", "-o", folder)
        assert {each["count"] for each in manifest(folder).values()} == {0}


async def test_nothing_is_written_over(logs: Logs, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    await headrace("log", "export", "-o", tmp_path / "a")
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(errors.AlreadyExists, match="has something in it"):
        await headrace("log", "export", "--format", "parquet", "-o", tmp_path / "a")
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before


async def test_what_fails_leaves_nothing(logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (logs.servers["registry"].store._log).pop(4)  # a row is gone
    for kind in Format:
        with pytest.raises(errors.InternalError, match="hole at position 5"):
            await headrace("log", "export", "--format", kind, "-o", tmp_path / "out" / "a")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--from", "5"], "from"),
        (["--service", "registry", "--to", "0"], "to"),
        (["--service", "registry", "--from", "5", "--to", "4"], "to"),
        (["--from", "2026-03-01"], "from"),
        (["--to", "soon"], "to"),
        (["--service", "tracing"], "services"),
    ],
)
async def test_a_range_that_is_none_is_refused_by_name(
    logs: Logs, tmp_path: Path, arguments: list[str], field: str
) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await headrace("log", "export", "-o", tmp_path / "a", *arguments)
    assert caught.value.field == field
    assert not (tmp_path / "a").exists()
