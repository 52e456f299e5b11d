"""The checker finds what it is there for: faults planted in what a scene without faults leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import pytest

from headrace.verifier import Checkpoint
from headrace_kit.eventstore import EventMeta, LogEntry
from headrace_kit.postgres import Record
from headrace_local.testing import Infrastructure
from tests.chaos.backbone.scene import Found, Stage, at_rest, faults, find, grows, staged

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


@pytest.fixture(scope="module")
def left(servers: Infrastructure, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Found]]:
    """What a short scene without faults left."""
    with staged(servers, tmp_path_factory.mktemp("scene"), burst=2, streams=2) as stage:
        for part in ("keeper", "writer", "answerer", "folder"):
            stage.start(part)
        grows(stage, by=40)
        assert at_rest(stage) == []
        yield stage, asyncio.run(find(stage))


def changed(row: Record, **values: object) -> Record:
    return cast("Record", {**dict(row.items()), **values})


def without_the_last_commands(found: Found) -> Found:
    # Two of them: the writer may have been stopped before it heard of the last.
    return replace(found, events=found.events[:-4])


def half_a_command(found: Found) -> Found:
    return replace(found, events=found.events[:-1])


def a_command_twice(found: Found) -> Found:
    last = found.events[-1]
    again = [changed(last, version=last["version"] + 1 + index, hlc=last["hlc"] + 1 + index) for index in range(2)]
    return replace(found, events=[*found.events, *again])


def a_command_forgotten(found: Found) -> Found:
    return replace(found, commands=set(list(found.commands)[1:]))


def a_position_missing(found: Found) -> Found:
    return replace(found, log=[*found.log[:3], *found.log[4:]])


def time_that_runs_backwards(found: Found) -> Found:
    log: list[LogEntry] = list(found.log)
    log[5] = replace(log[5], sequenced_at=log[0].sequenced_at.replace(year=2020))
    return replace(found, log=log)


def a_byte_changed(found: Found) -> Found:
    log = list(found.log)
    log[5] = replace(log[5], event=replace(log[5].event, data=b"\x08\x63"))
    return replace(found, log=log)


def an_answer_twice(found: Found) -> Found:
    last = found.answers[-1]
    return replace(found, answers=[*found.answers, changed(last, version=last["version"] + 1, hlc=last["hlc"] + 1)])


def an_answer_missing(found: Found) -> Found:
    return replace(found, answers=found.answers[:-1])


def an_answer_before_its_cause(found: Found) -> Found:
    first = found.answers[0]
    cause = next(row for row in found.events if row["event_id"] == EventMeta.decode(first["meta"]).causation_id)
    return replace(found, answers=[changed(first, hlc=cause["hlc"]), *found.answers[1:]])


def a_point_twice(found: Found) -> Found:
    name, values = next(iter(found.points.items()))
    return replace(found, points={**found.points, name: [*values, values[-1]]})


def points_out_of_order(found: Found) -> Found:
    name, values = next(iter(found.points.items()))
    return replace(found, points={**found.points, name: [values[1], values[0], *values[2:]]})


def a_parked_stream(found: Found) -> Found:
    return replace(found, parked=1)


def a_log_that_was_cut(found: Found) -> Found:
    return replace(found, log=found.log[:-2])


def a_checkpoint_of_another_log(found: Found) -> Found:
    last = found.checkpoints[-1]
    return replace(found, checkpoints=[*found.checkpoints[:-1], replace(last, root=found.log[0].leaf)])


def a_checkpoint_without_its_signature(found: Found) -> Found:
    last = found.checkpoints[-1]
    forged = Checkpoint.parse(last.note.replace(last.made_at, f"{last.made_at[:-1]}0Z"))
    return replace(found, checkpoints=[*found.checkpoints[:-1], forged])


def no_checkpoint_of_the_end(found: Found) -> Found:
    return replace(found, checkpoints=[each for each in found.checkpoints if each.size < len(found.log)])


@pytest.mark.parametrize(
    ("plant", "finding"),
    [
        (without_the_last_commands, "were acknowledged and"),
        (half_a_command, "commands of 2 wrote"),
        (a_command_twice, "commands of 2 wrote"),
        (a_command_forgotten, "commands of"),
        (a_position_missing, "position 5 stands where 4 should"),
        (time_that_runs_backwards, "time does not rise at 6"),
        (a_byte_changed, "the leaf of 6 is not its entry's"),
        (an_answer_twice, "answers nothing, or what was answered before"),
        (an_answer_missing, "answered"),
        (an_answer_before_its_cause, "is not above that of its cause"),
        (a_point_twice, "folded"),
        (points_out_of_order, "folded"),
        (a_log_that_was_cut, "the log ends before the checkpoint of size"),
        (a_checkpoint_of_another_log, "the log does not begin as the checkpoint of size"),
        (a_checkpoint_without_its_signature, "is wrong"),
        (no_checkpoint_of_the_end, "the checkpoints end at"),
        (a_parked_stream, "1 streams are parked"),
    ],
)
def test_a_planted_fault_is_found(left: tuple[Stage, Found], plant: Callable[[Found], Found], finding: str) -> None:
    stage, found = left
    assert any(finding in each for each in faults(plant(found), stage))
