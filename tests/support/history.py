"""What the log of a platform must show, whatever was killed while it was written.

    assert faults(read_logs(client)) == []

Each rule is a function from the whole log to the faults it finds, one sentence each. ``faults`` asks them all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Final

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.orchestrator.v1 import events_pb2 as orchestrator
from headrace.api.registry.v1 import events_pb2 as registry
from headrace.api.registry.v1.resources_pb2 import Promotion

Rule = Callable[[Sequence[LogEntry]], Iterator[str]]

_ENDS: Final = ("PipelineRunSucceeded", "PipelineRunFailed", "PipelineRunCancelled")


def faults(entries: Iterable[LogEntry], *, runs_below: str = "") -> list[str]:
    """Everything that is wrong with the log of a platform at rest; an empty list when nothing is.

    Args:
        entries: The whole logs of all services, in any order.
        runs_below: Pipeline runs whose name starts so must have ended.
    """
    log = sorted(entries, key=lambda entry: (entry.source, entry.position))
    found = [fault for rule in RULES for fault in rule(log)]
    return [*found, *runs_not_ended(log, below=runs_below)]


def positions_with_gaps(log: Sequence[LogEntry]) -> Iterator[str]:
    """Each service's log has the positions 1 to n, each once."""
    for source, entries in groupby(log, key=lambda entry: entry.source):
        for expected, entry in enumerate(entries, start=1):
            if entry.position != expected:
                yield f"{source}: position {entry.position} stands where {expected} should"
                break


def events_repeated(log: Sequence[LogEntry]) -> Iterator[str]:
    """No two events have one id."""
    for event_id, count in Counter(entry.event_id for entry in log).items():
        if count > 1:
            yield f"event {event_id} stands {count} times in the log"


def versions_with_gaps(log: Sequence[LogEntry]) -> Iterator[str]:
    """Each stream has the versions 1 to n, in the order of their positions."""
    last: Counter[tuple[str, str]] = Counter()
    for entry in log:
        stream = (entry.source, entry.stream_id)
        if entry.version != last[stream] + 1:
            yield f"{entry.stream_id}: version {entry.version} follows {last[stream]}"
        last[stream] = entry.version


def commands_repeated(log: Sequence[LogEntry]) -> Iterator[str]:
    """The events of a command are one consecutive run of versions of one stream."""
    written: defaultdict[tuple[str, str], list[LogEntry]] = defaultdict(list)
    for entry in log:
        written[entry.source, entry.meta.command_id].append(entry)
    for (source, command), entries in written.items():
        if len({entry.stream_id for entry in entries}) > 1:
            yield f"{source}: command {command} wrote to more than one stream"
        elif any(later.version != earlier.version + 1 for earlier, later in pairwise(entries)):
            yield f"{source}: command {command} took effect more than once on {entries[0].stream_id}"


def effects_before_causes(log: Sequence[LogEntry]) -> Iterator[str]:
    """What an event names as its cause stands in the log, and its clock is lower."""
    by_id = {entry.event_id: entry for entry in log}
    for entry in log:
        if not entry.meta.causation_id:
            continue
        cause = by_id.get(entry.meta.causation_id)
        if cause is None:
            yield f"{_name(entry)}: its cause {entry.meta.causation_id} is in no log"
        elif cause.hlc >= entry.hlc:
            yield f"{_name(entry)}: its clock is not above that of its cause, {_name(cause)}"


def steps_not_once(log: Sequence[LogEntry]) -> Iterator[str]:
    """A step is completed at most once, under a lease that was given; in a run that succeeded, each step is."""
    for run, entries in _by_stream(log, "headrace/orchestrator"):
        completed: Counter[str] = Counter()
        leases: set[tuple[str, int, int]] = set()
        planned: list[str] = []
        for entry in entries:
            match _type(entry):
                case "PipelineRunStarted":
                    definition = orchestrator.PipelineRunStarted.FromString(entry.data).run.definition
                    planned = [step.id for step in definition.steps]
                case "StepLeased":
                    lease = orchestrator.StepLeased.FromString(entry.data)
                    leases.add((lease.step, lease.attempt, lease.token))
                case "StepCompleted":
                    done = orchestrator.StepCompleted.FromString(entry.data)
                    completed[done.step] += 1
                    if (done.step, done.attempt, done.token) not in leases:
                        yield f"{run}: step {done.step} was completed without a lease"
                case "PipelineRunSucceeded":
                    for step in planned:
                        if not completed[step]:
                            yield f"{run}: succeeded without step {step}"
                case _:
                    pass
        for step, count in completed.items():
            if count > 1:
                yield f"{run}: step {step} was completed {count} times"


def runs_not_ended(log: Sequence[LogEntry], *, below: str = "") -> Iterator[str]:
    """Every pipeline run has ended, and nothing happened to it after."""
    for stream, entries in _by_stream(log, "headrace/orchestrator"):
        types = [_type(entry) for entry in entries]
        if "PipelineRunStarted" not in types or not stream.startswith(below):
            continue
        if types[-1] not in _ENDS:
            yield f"{stream}: did not end; the last of it is {types[-1]}"
        for earlier, later in pairwise(types):
            if earlier in _ENDS and later != "PipelineRunResumed":
                yield f"{stream}: {later} follows {earlier}"


def revisions_not_once(log: Sequence[LogEntry]) -> Iterator[str]:
    """Each move of an alias, forward or back, has the revision after the one before."""
    for model, entries in _by_stream(log, "headrace/registry"):
        last: Counter[str] = Counter()
        for move in _moves(entries):
            if move.revision != last[move.alias] + 1:
                yield f"{model}@{move.alias}: revision {move.revision} follows {last[move.alias]}"
            last[move.alias] = move.revision


RULES: Final[Sequence[Rule]] = (
    positions_with_gaps,
    events_repeated,
    versions_with_gaps,
    commands_repeated,
    effects_before_causes,
    steps_not_once,
    revisions_not_once,
)
"""All but ``runs_not_ended``, which needs to know whose runs are meant."""


def _moves(entries: Iterable[LogEntry]) -> Iterator[Promotion]:
    for entry in entries:
        if _type(entry) == "VersionPromoted":
            yield registry.VersionPromoted.FromString(entry.data).promotion
        elif _type(entry) == "VersionRolledBack":
            yield registry.VersionRolledBack.FromString(entry.data).promotion


def _by_stream(log: Sequence[LogEntry], source: str) -> Iterator[tuple[str, list[LogEntry]]]:
    streams: defaultdict[str, list[LogEntry]] = defaultdict(list)
    for entry in log:
        if entry.source == source:
            streams[entry.stream_id].append(entry)
    yield from streams.items()


def _type(entry: LogEntry) -> str:
    return entry.type.rpartition(".")[2]


def _name(entry: LogEntry) -> str:
    return f"{_type(entry)} {entry.event_id} of {entry.stream_id}"
