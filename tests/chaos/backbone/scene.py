"""One scene: its parts as processes that tests kill, freeze and wake, and the checker that judges what they left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from google.protobuf.wrappers_pb2 import Int64Value

from headrace_kit.eventstore import LogEntry, PostgresEventStore
from headrace_kit.leaf import leaf_bytes, leaf_hash
from headrace_kit.log import KafkaLog, KafkaSettings, TopicSpec
from headrace_kit.postgres import Record
from headrace_local.testing import FreshDatabase, Infrastructure
from tests.chaos.backbone.members import Scene, acknowledged, command_of
from tests.support.counters import TYPES, stream
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

    def start(self, name: str, *, role: str = "", environment: Mapping[str, str] | None = None) -> None:
        """Start a part; its role is its name up to a hyphen unless it is given."""
        role = role or name.partition("-")[0]
        command = [sys.executable, "-m", "tests.chaos.backbone.members", role, str(self._path), str(self.notes)]
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

    def restart(self, name: str) -> None:
        """Kill a part with -9 and start it anew."""
        self.kill(name)
        self.start(name)

    def end(self, name: str) -> None:
        """Ask a part to stop, and wait; fails when it ended by itself before."""
        part = self.parts.pop(name)
        assert part.poll() is None, f"{name} ended by itself: {(self.folder / f'{name}.log').read_text()[-2000:]}"
        part.send_signal(signal.SIGCONT)
        part.terminate()
        part.wait(30)

    def stop(self) -> None:
        """Kill whatever runs still."""
        for part in self.parts.values():
            part.kill()
            part.wait(10)

    @property
    def notes(self) -> Path:
        """Where the writer notes what was acknowledged."""
        return self.folder / "acknowledged"

    def written(self) -> int:
        """How many numbers were acknowledged."""
        return sum(acknowledged(self.notes).values())

    @property
    def _path(self) -> Path:
        return self.folder / "scene.json"


@contextmanager
def staged(infrastructure: Infrastructure, folder: Path, *, rate: float = 100.0) -> Iterator[Stage]:
    """A scene of its own on running servers; nothing of it runs yet."""
    with infrastructure.database() as counters, infrastructure.database() as answers:
        for each in (counters, answers):
            infrastructure.call(prepare(each))
        bootstrap = infrastructure.addresses.kafka_bootstrap
        source = f"headrace/counters-{uuid4().hex[:8]}"
        scene = Scene(source, counters.service_dsn, answers.service_dsn, bootstrap, rate=rate)
        infrastructure.call(KafkaLog(KafkaSettings(bootstrap)).ensure_topics([TopicSpec(scene.topic, 4)]))
        stage = Stage(scene, folder, counters, answers)
        scene.write(folder / "scene.json")
        try:
            yield stage
        finally:
            stage.stop()


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in the databases."""

    events: list[Record]
    commands: set[UUID]
    log: list[LogEntry]
    points: dict[str, list[int]]
    answered: dict[str, list[int]]
    parked: int


async def drained(stage: Stage) -> bool:
    """Whether all that was written was sequenced, answered and folded."""
    async with pooled(stage.counters, max_size=1) as counters, pooled(stage.answers, max_size=1) as answers:
        written = await counters.fetchval("SELECT count(*) FROM events")
        sequenced = await counters.fetchval("SELECT count(*) FROM log_entries")
        answered = await answers.fetchval("SELECT count(*) FROM events")
        folded = await answers.fetchval("SELECT count(*) FROM points")
    return len({written, sequenced, answered, folded}) == 1


async def find(stage: Stage) -> Found:
    """Reads everything."""
    async with pooled(stage.counters, max_size=1) as counters, pooled(stage.answers, max_size=1) as answers:
        store = PostgresEventStore(counters, stage.scene.source, TYPES)
        answered: defaultdict[str, list[int]] = defaultdict(list)
        for row in await answers.fetch("SELECT stream_id, data FROM events ORDER BY stream_id, version"):
            answered[row["stream_id"]].append(_number(row["data"]))
        points: defaultdict[str, list[int]] = defaultdict(list)
        for row in await answers.fetch("SELECT name, value FROM points ORDER BY arrived"):
            points[row["name"]].append(row["value"])
        return Found(
            events=await counters.fetch("SELECT stream_id, version, data FROM events ORDER BY stream_id, version"),
            commands={row["command_id"] for row in await counters.fetch("SELECT command_id FROM commands")},
            log=await store.read_log(1, 10_000_000),
            points=points,
            answered=answered,
            parked=await answers.fetchval("SELECT count(*) FROM parked_streams"),
        )


def faults(found: Found, stage: Stage) -> list[str]:
    """Everything that is wrong with a scene at rest; an empty list when nothing is."""
    return [*_of_writing(found, stage), *_of_the_log(found), *_of_consumers(found)]


def _of_writing(found: Found, stage: Stage) -> Iterator[str]:
    """Every acknowledged command once, no command twice, and at most one more than was acknowledged."""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for row in found.events:
        numbers[row["stream_id"]].append(_number(row["data"]))
    for counter, last in acknowledged(stage.notes).items():
        stored = numbers.pop(stream(counter), [])
        if stored != list(range(1, len(stored) + 1)):
            yield f"counter {counter}: {_first_wrong(stored)}"
        if not last <= len(stored) <= last + 1:
            yield f"counter {counter}: {last} were acknowledged and {len(stored)} stored"
        missing = [value for value in range(1, last + 1) if command_of(counter, value) not in found.commands]
        if missing:
            yield f"counter {counter}: the commands of {missing[:5]} are not known"
    yield from (f"{name}: {len(values)} stored, none acknowledged" for name, values in numbers.items() if values[1:])
    if len(found.commands) != len(found.events):
        yield f"{len(found.commands)} commands wrote {len(found.events)} events"


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
        if before is not None and entry.sequenced_at < before:
            yield f"time runs backwards at {expected}"
        before = entry.sequenced_at
        if entry.event.version != last[entry.event.stream_id] + 1:
            yield f"{entry.event.stream_id}: version {entry.event.version} follows {last[entry.event.stream_id]}"
        last[entry.event.stream_id] = entry.event.version
        if entry.leaf != _leaf(entry):
            yield f"the leaf of {expected} is not its entry's"


def _of_consumers(found: Found) -> Iterator[str]:
    """Each event answered once and folded once, in order."""
    written: Counter[str] = Counter(row["stream_id"] for row in found.events)
    for what, by_stream in (("answered", found.answered), ("folded", found.points)):
        for name, count in written.items():
            values = by_stream.get(name, [])
            if values != list(range(1, count + 1)):
                yield f"{name}: {what} {len(values)} of {count}: {_first_wrong(values)}"
    if found.parked:
        yield f"{found.parked} streams are parked"


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
