"""The checker of histories accepts a sound log and fails on every way of tampering with it."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable

import pytest
from google.protobuf.message import Message

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.orchestrator.v1 import events_pb2 as orchestrator
from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import events_pb2 as registry
from headrace.api.registry.v1.resources_pb2 import Promotion
from tests.support.history import faults

RUN = "projects/default/pipelineRuns/run"
MODEL = "projects/default/models/delays"


class Logs:
    """Logs as services would write them."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        self._positions: Counter[str] = Counter()
        self._versions: Counter[str] = Counter()

    def write(self, source: str, stream: str, *events: Message, cause: LogEntry | None = None) -> LogEntry:
        """One command; returns the last of its events."""
        command = str(uuid.uuid4())
        for event in events:
            self._positions[source] += 1
            self._versions[stream] += 1
            entry = LogEntry(
                source=f"headrace/{source}",
                position=self._positions[source],
                event_id=str(uuid.uuid4()),
                stream_id=stream,
                version=self._versions[stream],
                type=f"headrace.{source}.v1.{event.DESCRIPTOR.name}",
                hlc=len(self.entries) + 1,
                data=event.SerializeToString(),
            )
            entry.meta.command_id = command
            entry.meta.causation_id = cause.event_id if cause else ""
            self.entries.append(entry)
        return self.entries[-1]


def sound() -> list[LogEntry]:
    """A run of two steps, then the version it made is promoted and rolled back."""
    logs = Logs()
    steps = [resources.StepDefinition(id="train"), resources.StepDefinition(id="register")]
    run = resources.PipelineRun(name=RUN, definition=resources.PipelineDefinition(steps=steps))
    logs.write(
        "orchestrator",
        RUN,
        orchestrator.PipelineRunStarted(run=run),
        orchestrator.StepLeased(run=RUN, step="train", attempt=1, token=1),
    )
    logs.write("orchestrator", RUN, orchestrator.StepFailed(run=RUN, step="train", attempt=1, token=1))
    logs.write("orchestrator", RUN, orchestrator.StepLeased(run=RUN, step="train", attempt=2, token=2))
    leased = logs.write(
        "orchestrator",
        RUN,
        orchestrator.StepCompleted(run=RUN, step="train", attempt=2, token=2),
        orchestrator.StepLeased(run=RUN, step="register", attempt=1, token=3),
    )
    created = logs.write("registry", MODEL, registry.VersionCreated(model=MODEL), cause=leased)
    logs.write(
        "orchestrator",
        RUN,
        orchestrator.StepCompleted(run=RUN, step="register", attempt=1, token=3),
        orchestrator.PipelineRunSucceeded(run=RUN),
    )
    promoted = registry.VersionPromoted(promotion=Promotion(alias="production", version=1, revision=1))
    cause = logs.write("registry", MODEL, promoted, cause=created)
    rolled_back = registry.VersionRolledBack(promotion=Promotion(alias="production", revision=2, rollback=True))
    logs.write("registry", MODEL, rolled_back, cause=cause)
    return logs.entries


def find(entries: list[LogEntry], type: str, nth: int = 0) -> LogEntry:
    return [entry for entry in entries if entry.type.endswith(f".{type}")][nth]


def drop(entries: list[LogEntry], type: str) -> None:
    """Take the events of a type out, and close the gap as somebody would who covers up."""
    for gone in [entry for entry in entries if entry.type.endswith(f".{type}")]:
        entries.remove(gone)
        for entry in entries:
            if entry.source == gone.source:
                entry.position -= entry.position > gone.position
            if entry.stream_id == gone.stream_id:
                entry.version -= entry.version > gone.version


def again(entries: list[LogEntry], type: str, *, command: str = "") -> None:
    """Let an event happen once more at the end of its stream."""
    before = find(entries, type, -1)
    copy = LogEntry()
    copy.CopyFrom(before)
    copy.event_id = str(uuid.uuid4())
    copy.position = max(entry.position for entry in entries if entry.source == before.source) + 1
    copy.version = max(entry.version for entry in entries if entry.stream_id == before.stream_id) + 1
    copy.hlc = len(entries) + 1
    copy.meta.command_id = command or str(uuid.uuid4())
    entries.append(copy)


def lose_an_event(entries: list[LogEntry]) -> None:
    entries.remove(find(entries, "StepFailed"))


def begin_late(entries: list[LogEntry]) -> None:
    entries.remove(find(entries, "VersionCreated"))


def repeat_a_version(entries: list[LogEntry]) -> None:
    find(entries, "StepFailed").version -= 1


def swap_versions(entries: list[LogEntry]) -> None:
    one, other = find(entries, "StepFailed"), find(entries, "StepLeased", 1)
    one.version, other.version = other.version, one.version


def repeat_an_id(entries: list[LogEntry]) -> None:
    find(entries, "StepFailed").event_id = find(entries, "StepLeased").event_id


def repeat_a_command(entries: list[LogEntry]) -> None:
    again(entries, "VersionRolledBack", command=find(entries, "VersionCreated").meta.command_id)


def spread_a_command(entries: list[LogEntry]) -> None:
    again(entries, "VersionRolledBack", command=find(entries, "VersionRolledBack").meta.command_id)
    entries[-1].stream_id, entries[-1].version = "projects/default/models/other", 1


def lose_a_cause(entries: list[LogEntry]) -> None:
    find(entries, "VersionCreated").meta.causation_id = str(uuid.uuid4())


def turn_back_the_clock(entries: list[LogEntry]) -> None:
    find(entries, "VersionCreated").hlc = 1


def complete_a_step_twice(entries: list[LogEntry]) -> None:
    again(entries, "StepCompleted")


def complete_without_a_lease(entries: list[LogEntry]) -> None:
    completed = orchestrator.StepCompleted(run=RUN, step="train", attempt=2, token=9)
    find(entries, "StepCompleted").data = completed.SerializeToString()


def skip_a_step(entries: list[LogEntry]) -> None:
    drop(entries, "StepCompleted")


def never_end(entries: list[LogEntry]) -> None:
    drop(entries, "PipelineRunSucceeded")


def go_on_after_the_end(entries: list[LogEntry]) -> None:
    again(entries, "StepLeased")
    again(entries, "PipelineRunSucceeded")


def promote_twice_under_a_revision(entries: list[LogEntry]) -> None:
    promoted = registry.VersionPromoted(promotion=Promotion(alias="production", version=2, revision=2))
    again(entries, "VersionPromoted")
    entries[-1].data = promoted.SerializeToString()


TAMPERED: list[tuple[Callable[[list[LogEntry]], None], str]] = [
    (lose_an_event, "headrace/orchestrator: position 4 stands where 3 should"),
    (begin_late, "headrace/registry: position 2 stands where 1 should"),
    (repeat_a_version, "version 2 follows 2"),
    (swap_versions, "version 4 follows 2"),
    (repeat_an_id, "stands 2 times in the log"),
    (repeat_a_command, "took effect more than once"),
    (spread_a_command, "wrote to more than one stream"),
    (lose_a_cause, "is in no log"),
    (turn_back_the_clock, "its clock is not above that of its cause"),
    (complete_a_step_twice, "step register was completed 2 times"),
    (complete_without_a_lease, "step train was completed without a lease"),
    (skip_a_step, "succeeded without step train"),
    (never_end, "did not end; the last of it is StepCompleted"),
    (go_on_after_the_end, "StepLeased follows PipelineRunSucceeded"),
    (promote_twice_under_a_revision, "revision 2 follows 2"),
]


def test_a_sound_history_has_no_faults_in_whatever_order_it_is_read() -> None:
    entries = sound()
    random.Random(1).shuffle(entries)

    assert faults(entries) == []


@pytest.mark.parametrize(("tamper", "fault"), TAMPERED, ids=[tamper.__name__ for tamper, _ in TAMPERED])
def test_a_tampered_history_fails(tamper: Callable[[list[LogEntry]], None], fault: str) -> None:
    entries = sound()

    tamper(entries)

    found = faults(entries)
    assert any(fault in each for each in found), found


def test_runs_of_others_need_not_have_ended() -> None:
    entries = sound()
    never_end(entries)

    assert faults(entries, runs_below="projects/mine/") == []
