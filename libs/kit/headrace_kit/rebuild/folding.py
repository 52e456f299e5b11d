"""From the events of one stream to its state and its rows, as its commands left them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.message import Message

from headrace.api.audit.v1.resources_pb2 import EventMeta
from headrace_kit.eventstore import Aggregate, Row

Identity: TypeAlias = tuple[str, tuple[tuple[str, object], ...]]
"""Table, and column and value of the key."""


@dataclass(frozen=True, slots=True)
class Event:
    """What folding needs of a stored event; ``message`` is in its newest form."""

    version: int
    hlc: int
    meta: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class Folded:
    """A stream after all its events.

    Attributes:
        stream_id: The stream.
        version: Its last version.
        hlc: The clock of its last event.
        state: The state, encoded deterministically.
        rows: The last change of each row; ``values`` is None where the row was deleted.
    """

    stream_id: str
    aggregate: str
    version: int
    hlc: int
    revision: int
    state: bytes
    rows: tuple[Row, ...]


class StreamFold:
    """Folds the events of one stream, given in order from version 1.

    Rows are made once a command, from the state after it and its events, just as the append did: a row may depend on
    what the state forgets later.
    """

    def __init__(self, aggregate: Aggregate[Any], stream_id: str) -> None:  # Any: states of different classes
        self.stream_id = stream_id
        self._aggregate = aggregate
        self._state: Message | None = None
        self._version = self._hlc = 0
        self._command: list[Message] = []
        self._meta = b""
        self._rows: dict[Identity, Row] = {}

    def add(self, event: Event) -> None:
        """The next event. Raises ValueError when it is not the next."""
        if event.version != self._version + 1:
            raise ValueError(f"version {event.version} of {self.stream_id} follows {self._version}")
        if self._command and not _same_command(self._meta, event.meta):
            self._close()
        self._command.append(event.message)
        self._meta, self._version, self._hlc = event.meta, event.version, event.hlc
        self._state = self._aggregate.evolve(self._state, event.message)

    def finish(self) -> Folded:
        """The stream after the events so far. Raises ValueError when there was none."""
        if self._state is None:
            raise ValueError(f"{self.stream_id} has no events")
        self._close()
        return Folded(
            stream_id=self.stream_id,
            aggregate=self._aggregate.name,
            version=self._version,
            hlc=self._hlc,
            revision=self._aggregate.revision,
            state=self._state.SerializeToString(deterministic=True),
            rows=tuple(self._rows.values()),
        )

    def _close(self) -> None:
        """Ends a command: its rows supersede those before."""
        if not self._command:
            return
        changes: dict[Identity, Row] = {}
        for row in self._aggregate.rows(self.stream_id, self._state, self._command):
            identity = (row.table, tuple(sorted(row.key.items())))
            changes[identity] = _upon(changes.get(identity), row)
        for identity, row in changes.items():
            self._rows[identity] = _upon(self._rows.get(identity), row)
        self._command = []


def _upon(before: Row | None, row: Row) -> Row:
    """What an upsert makes of the change before it: columns that it does not name keep what they hold."""
    if before is None or before.values is None or row.values is None or before.values.keys() == row.values.keys():
        return row
    return Row(row.table, row.key, {**before.values, **row.values})


def _same_command(one: bytes, other: bytes) -> bool:
    """Whether two events were written by one command; most that were have the very same meta."""
    if one == other:
        return True
    return EventMeta.FromString(one).command_id == EventMeta.FromString(other).command_id
