"""One scene: its parts as processes that tests kill, freeze and wake, and the checker that judges what they left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import psutil
from google.protobuf.wrappers_pb2 import Int64Value

from headrace.evidence.keeping import KEYS_FILE
from headrace.merkle import Range
from headrace.verifier import Checkpoint, Key, NotProved, checkpoints_in, keys_of
from headrace_kit.eventstore import EventMeta, LogEntry, PostgresEventStore
from headrace_kit.leaf import leaf_bytes, leaf_hash
from headrace_kit.log import KafkaLog, KafkaSettings, TopicSpec
from headrace_kit.postgres import Record
from headrace_local.testing import FreshDatabase, Infrastructure
from tests.chaos.backbone.members import Scene, acknowledged, command_of, kept
from tests.support.counters import TYPES, stream
from tests.support.eventually import eventually
from tests.support.kit import pooled, prepare

_ROOT = Path(__file__).resolve().parents[3]


@dataclass(slots=True)
class Stage:
    """A running scene. ``scene`` says where its parts find each other."""

    scene: Scene
    folder: Path
    counters: FreshDatabase
    answers: FreshDatabase
    parts: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict[str, "subprocess.Popen[bytes]"])
    roles: set[str] = field(default_factory=set[str])
    """Every role that was ever played."""

    def start(self, name: str, *, environment: Mapping[str, str] | None = None) -> None:
        """Start a part; its role is its name up to a hyphen."""
        role = name.partition("-")[0]
        self.roles.add(role)
        command = [sys.executable, "-m", "tests.chaos.backbone.members", role, name, str(self.folder)]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.parts[name] = subprocess.Popen(
                command, cwd=_ROOT, stdout=log, stderr=log, env={**os.environ, **(environment or {})}
            )

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a part."""
        self.parts[name].send_signal(number)

    def kill(self, name: str) -> None:
        """Kill a part with -9 and wait until it is gone."""
        self.parts[name].kill()
        self.parts[name].wait(10)

    def restart(self, name: str, *, environment: Mapping[str, str] | None = None) -> None:
        """Kill a part with -9 and start it anew."""
        self.kill(name)
        self.start(name, environment=environment)

    def end(self, name: str) -> None:
        """Ask a part to stop, and wait; fails when it ended by itself before."""
        part = self.parts.pop(name)
        assert part.poll() is None, f"{name} ended by itself: {self.log(name)[-2000:]}"
        part.send_signal(signal.SIGCONT)
        part.terminate()
        part.wait(30)

    def stop(self) -> None:
        """Kill whatever runs still."""
        for part in self.parts.values():
            part.kill()
            part.wait(10)

    def log(self, name: str) -> str:
        """What a part has said so far."""
        return (self.folder / f"{name}.log").read_text()

    def resident(self) -> dict[str, int]:
        """Bytes of memory of each part."""
        return {name: int(psutil.Process(part.pid).memory_info().rss) for name, part in self.parts.items()}

    def written(self) -> int:
        """How many numbers were acknowledged."""
        return sum(acknowledged(self.folder).values())


@contextmanager
def staged(
    infrastructure: Infrastructure,
    folder: Path,
    *,
    rate: float = 100.0,
    burst: int = 1,
    streams: int = 8,
    postgres: str = "",
    kafka: str = "",
) -> Iterator[Stage]:
    """A scene of its own on running servers; nothing of it runs yet.

    Args:
        infrastructure: The servers.
        folder: For what the parts leave behind.
        rate: As ``Scene.rate``.
        burst: As ``Scene.burst``.
        streams: As ``Scene.streams``.
        postgres: ``host:port`` where the parts find PostgreSQL; its own by default.
        kafka: Likewise, Kafka.
    """
    with infrastructure.database() as counters, infrastructure.database() as answers:
        for each in (counters, answers):
            infrastructure.call(prepare(each))
        bootstrap = infrastructure.addresses.kafka_bootstrap
        scene = Scene(
            source=f"headrace/counters-{uuid4().hex[:8]}",
            counters_dsn=_at(counters.service_dsn, postgres),
            answers_dsn=_at(answers.service_dsn, postgres),
            bootstrap=kafka or bootstrap,
            streams=streams,
            rate=rate,
            burst=burst,
        )
        infrastructure.call(KafkaLog(KafkaSettings(bootstrap)).ensure_topics([TopicSpec(scene.topic, 4)]))
        stage = Stage(scene, folder, counters, answers)
        scene.write(folder / "scene.json")
        try:
            yield stage
        finally:
            stage.stop()


def _at(dsn: str, address: str) -> str:
    """A DSN with another address, if one is given."""
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{address}")) if address else dsn


def grows(stage: Stage, *, by: int, within_s: float = 120.0) -> float:
    """Wait until so many more were acknowledged; returns the seconds it took."""
    until, began = stage.written() + by, time.monotonic()
    eventually(lambda: stage.written() >= until, within_s=within_s)
    return time.monotonic() - began


def passes(seconds: float) -> None:
    """Wait until so much time is over: a fault is defined by its length."""
    over = time.monotonic() + seconds
    eventually(lambda: time.monotonic() >= over, within_s=seconds + 30)


def at_rest(stage: Stage, *, within_s: float = 200.0) -> list[str]:
    """Let the writers stop and the rest catch up; returns the faults of what is there."""
    for name in [each for each in stage.parts if each.startswith("writer")]:
        stage.end(name)
    eventually(lambda: asyncio.run(drained(stage)), within_s=within_s)
    for part in list(stage.parts):
        stage.end(part)
    return faults(asyncio.run(find(stage)), stage)


@contextmanager
def frozen(servers: Infrastructure, part: str) -> Iterator[None]:
    """All processes of a part, stopped for the length of a ``with`` block."""
    leader = psutil.Process(servers.stack.supervised[part].pid)
    family = [leader, *leader.children(recursive=True)]
    for each in family:
        each.suspend()
    try:
        yield
    finally:
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.resume()


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in the databases."""

    events: list[Record]
    commands: set[UUID]
    log: list[LogEntry]
    points: dict[str, list[int]]
    answers: list[Record]
    parked: int
    checkpoints: list[Checkpoint]
    """Those outside the database, as they were written."""
    keys: list[Key]


async def drained(stage: Stage) -> bool:
    """Whether all that was written was sequenced, and answered and folded by those who were there for it."""
    async with pooled(stage.counters, max_size=1) as counters, pooled(stage.answers, max_size=1) as answers:
        counts = {
            await counters.fetchval("SELECT count(*) FROM events"),
            await counters.fetchval("SELECT count(*) FROM log_entries"),
            max((each.size for each in checkpoints(stage)), default=0),
        }
        if "answerer" in stage.roles:
            counts.add(await answers.fetchval("SELECT count(*) FROM events"))
        if "folder" in stage.roles:
            counts.add(await answers.fetchval("SELECT count(*) FROM points"))
    return len(counts) == 1


def outside(stage: Stage) -> Path:
    """The folder of the log's checkpoints."""
    return kept(stage.folder) / stage.scene.source.replace("/", "-")


def checkpoints(stage: Stage) -> list[Checkpoint]:
    """Those outside the database, as they were written."""
    return [each for file in sorted(outside(stage).glob("*.checkpoints")) for each in checkpoints_in(file)]


async def find(stage: Stage) -> Found:
    """Reads everything."""
    async with pooled(stage.counters, max_size=1) as counters, pooled(stage.answers, max_size=1) as answers:
        store = PostgresEventStore(counters, stage.scene.source, TYPES)
        points: defaultdict[str, list[int]] = defaultdict(list)
        for row in await answers.fetch("SELECT name, value FROM points ORDER BY arrived"):
            points[row["name"]].append(row["value"])
        events = "SELECT stream_id, version, event_id, hlc, meta, data FROM events ORDER BY stream_id, version"
        return Found(
            events=await counters.fetch(events),
            commands={row["command_id"] for row in await counters.fetch("SELECT command_id FROM commands")},
            log=await store.read_log(1, 10_000_000),
            points=points,
            answers=await answers.fetch(events),
            parked=await answers.fetchval("SELECT count(*) FROM parked_streams"),
            checkpoints=checkpoints(stage),
            keys=keys_of([str(outside(stage) / KEYS_FILE)]),
        )


def faults(found: Found, stage: Stage) -> list[str]:
    """Everything that is wrong with a scene at rest; an empty list when nothing is."""
    return [
        *_of_writing(found, stage),
        *_of_the_log(found),
        *_of_the_evidence(found),
        *_of_clocks(found.events),
        *(_of_answers(found) if "answerer" in stage.roles else ()),
        *(_of_folding(found) if "folder" in stage.roles else ()),
        *([f"{found.parked} streams are parked"] if found.parked else ()),
    ]


def _of_writing(found: Found, stage: Stage) -> Iterator[str]:
    """Every acknowledged command once and whole, no command twice, and at most one more than was acknowledged."""
    burst = stage.scene.burst
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for row in found.events:
        numbers[row["stream_id"]].append(_number(row["data"]))
    for counter, last in acknowledged(stage.folder).items():
        stored = numbers.pop(stream(counter), [])
        if stored != list(range(1, len(stored) + 1)):
            yield f"counter {counter}: {_first_wrong(stored)}"
        if len(stored) not in (last, last + burst):
            yield f"counter {counter}: {last} were acknowledged and {len(stored)} stored"
        missing = [value for value in range(burst, last + 1, burst) if command_of(counter, value) not in found.commands]
        if missing:
            yield f"counter {counter}: the commands of {missing[:5]} are not known"
    yield from (f"{name}: {len(each)} stored, none acknowledged" for name, each in numbers.items() if each[burst:])
    if len(found.commands) * burst != len(found.events):
        yield f"{len(found.commands)} commands of {burst} wrote {len(found.events)} events"


def _of_clocks(events: list[Record]) -> Iterator[str]:
    """Along a stream the hybrid clock rises."""
    last: Counter[str] = Counter()
    for row in events:
        if row["hlc"] <= last[row["stream_id"]]:
            yield f"{row['stream_id']}: the clock of version {row['version']} is not above the one before"
        last[row["stream_id"]] = row["hlc"]


def _of_the_log(found: Found) -> Iterator[str]:
    """Dense positions, rising times and versions, and leaves that are the hashes of their entries."""
    if len(found.log) != len(found.events):
        yield f"{len(found.events)} events have {len(found.log)} places in the log"
    last: Counter[str] = Counter()
    before = None
    for expected, entry in enumerate(found.log, start=1):
        if entry.position != expected:
            yield f"position {entry.position} stands where {expected} should"
            break
        if before is not None and entry.sequenced_at <= before:
            yield f"time does not rise at {expected}"
        before = entry.sequenced_at
        if entry.event.version != last[entry.event.stream_id] + 1:
            yield f"{entry.event.stream_id}: version {entry.event.version} follows {last[entry.event.stream_id]}"
        last[entry.event.stream_id] = entry.event.version
        if entry.leaf != _leaf(entry):
            yield f"the leaf of {expected} is not its entry's"


def _of_the_evidence(found: Found) -> Iterator[str]:
    """Every checkpoint outside is signed, and the log begins as it says; the last one covers the whole log."""
    tree, leaves = Range(), [entry.leaf for entry in found.log]
    for checkpoint in sorted(found.checkpoints, key=lambda each: each.size):
        try:
            checkpoint.signer(found.keys)
        except NotProved as error:
            yield str(error)
        tree.extend(leaves[tree.size : checkpoint.size])
        if tree.size != checkpoint.size:
            yield f"the log ends before the checkpoint of size {checkpoint.size}"
        elif tree.root() != checkpoint.root:
            yield f"the log does not begin as the checkpoint of size {checkpoint.size} says"
    if tree.size != len(leaves):
        yield f"the checkpoints end at {tree.size} of {len(leaves)}"


def _of_answers(found: Found) -> Iterator[str]:
    """Each event answered once, in order, by an event whose clock is higher."""
    values: defaultdict[str, list[int]] = defaultdict(list)
    causes = {row["event_id"]: row for row in found.events}
    for row in found.answers:
        values[row["stream_id"]].append(_number(row["data"]))
        cause = causes.pop(EventMeta.decode(row["meta"]).causation_id, None)
        if cause is None:
            yield f"{row['stream_id']}: version {row['version']} answers nothing, or what was answered before"
        elif row["hlc"] <= cause["hlc"]:
            yield f"{row['stream_id']}: the clock of version {row['version']} is not above that of its cause"
    yield from _not_once("answered", values, found)
    yield from _of_clocks(found.answers)


def _of_folding(found: Found) -> Iterator[str]:
    """Each event folded once, in order."""
    yield from _not_once("folded", found.points, found)


def _not_once(what: str, by_stream: Mapping[str, list[int]], found: Found) -> Iterator[str]:
    for name, count in Counter(row["stream_id"] for row in found.events).items():
        values = by_stream.get(name, [])
        if values != list(range(1, count + 1)):
            yield f"{name}: {what} {len(values)} of {count}: {_first_wrong(values)}"


def _first_wrong(values: list[int]) -> str:
    for expected, value in enumerate(values, start=1):
        if value != expected:
            return f"{value} stands where {expected} should"
    return f"ends with {values[-1:]}"


def _leaf(entry: LogEntry) -> bytes:
    event = entry.event
    return leaf_hash(
        leaf_bytes(
            source=entry.source,
            position=entry.position,
            event_id=event.event_id,
            stream_id=event.stream_id,
            version=event.version,
            type=event.type,
            occurred_at=event.occurred_at,
            recorded_at=event.recorded_at,
            sequenced_at=entry.sequenced_at,
            hlc=event.hlc,
            meta=event.meta,
            data=event.data,
        )
    )


def _number(data: bytes) -> int:
    return Int64Value.FromString(data).value
