"""Pure: an archived range of telemetry, from its events. One stream for each range, named by its first offset.

So a range is archived once whoever tries: the second event of a first offset would be version 1 of the same stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID, uuid5

from google.protobuf.message import Message

from headrace.api.monitor.v1 import events_pb2 as events
from headrace.api.monitor.v1.resources_pb2 import ArchivedRange
from headrace_kit.context import CommandContext
from headrace_kit.errors import FailedPrecondition, NotFound
from headrace_kit.names import NamePattern

ARCHIVES: Final = UUID("0b6fd5c1-3c0b-5a37-9a44-6f0a4b0f1c55")
"""Root of the command ids that archive a range. Fixed for ever."""

REWRITES: Final = UUID("c2f1b6a4-9d0e-5b3a-8a3f-6e2d7c9b1a54")
"""Root of the command ids that rewrite a range. Fixed for ever."""

PROJECT: Final = "headrace"
"""Project of what belongs to the platform: a partition holds records of every project."""

RANGE: Final = NamePattern("projects/{project}/archives/{archive}/ranges/{range}")


def archive_command_id(topic: str, partition: int, *, first_offset: int, last_offset: int) -> UUID:
    """Id of the one command that archives a range."""
    return uuid5(ARCHIVES, f"{topic}|{partition}|{first_offset}|{last_offset}")


def rewrite_command_id(erasure: str, range_: str) -> UUID:
    """Id of the one command that rewrites a range for an erasure."""
    return uuid5(REWRITES, f"{erasure}|{range_}")


def range_name(topic: str, partition: int, first_offset: int) -> str:
    """Name of the range that begins at an offset: ``.../archives/predictions-3/ranges/00000000000000000000``."""
    kind = topic.removesuffix(".v1").rpartition(".")[2]
    return RANGE.format(project=PROJECT, archive=f"{kind}-{partition}", range=f"{first_offset:020d}")


def decide_archived(
    state: ArchivedRange | None, archived: events.TelemetryArchived, context: CommandContext
) -> Sequence[Message]:
    """Nothing when a range of this first offset is archived already: the first one stands."""
    if state is not None:
        return []
    event = events.TelemetryArchived()
    event.CopyFrom(archived)
    event.time.FromDatetime(context.now)
    return [event]


def decide_rewritten(
    state: ArchivedRange | None, rewritten: events.ArchiveRewritten, context: CommandContext
) -> Sequence[Message]:
    """Nothing when it is rewritten so already.

    Raises:
        NotFound: there is no such range.
        FailedPrecondition: it was rewritten in another way meanwhile.
    """
    if state is None:
        raise NotFound("archived range", rewritten.range, field="range")
    if state.root == rewritten.new_root:
        return []
    if state.root != rewritten.old_root:
        raise FailedPrecondition("the range was rewritten meanwhile", reason="ARCHIVE_MOVED", field="range")
    event = events.ArchiveRewritten()
    event.CopyFrom(rewritten)
    event.time.FromDatetime(context.now)
    return [event]


def evolve(state: ArchivedRange | None, event: Message) -> ArchivedRange:
    """The state after an event."""
    found = ArchivedRange()
    if state is not None:
        found.CopyFrom(state)
    found.revision += 1
    match event:
        case events.TelemetryArchived():
            _begin(found, event)
        case events.ArchiveRewritten():
            found.rows, found.size_bytes, found.root = event.rows, event.size_bytes, event.new_root
            found.manifest.CopyFrom(event.manifest)
            rewrite = found.rewrites.add(
                old_root=event.old_root,
                new_root=event.new_root,
                reason=event.reason,
                rows_erased=event.rows_erased,
                erasure=event.erasure,
                person=event.person,
            )
            rewrite.time.CopyFrom(event.time)
        case _:
            pass
    return found


def _begin(found: ArchivedRange, event: events.TelemetryArchived) -> None:
    found.name, found.topic, found.partition = event.range, event.topic, event.partition
    found.first_offset, found.last_offset, found.lost_offsets = (
        event.first_offset,
        event.last_offset,
        event.lost_offsets,
    )
    found.records, found.rows, found.size_bytes, found.root = event.records, event.rows, event.size_bytes, event.root
    found.first_time.CopyFrom(event.first_time)
    found.last_time.CopyFrom(event.last_time)
    found.manifest.CopyFrom(event.manifest)
    found.create_time.CopyFrom(event.time)
