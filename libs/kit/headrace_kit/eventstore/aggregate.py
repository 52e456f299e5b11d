"""Aggregates: how one kind of stream folds its events, and which read-model rows it owns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from google.protobuf.message import Message

S = TypeVar("S", bound=Message)


@dataclass(frozen=True, slots=True)
class Row:
    """A change of one read-model row: an upsert, or a deletion when ``values`` is None.

    Columns that ``values`` leaves out keep what they hold. Of several changes to one row in the same command the
    last wins.

    Attributes:
        table: The table, a plain lower-case SQL identifier.
        key: Column -> value of the table's whole primary key.
        values: Column -> value of the other columns: str, int, float (NaN included), bool, datetime, date, bytes,
            UUID, None, and list or dict for jsonb columns. The table's column types decide the SQL types.
    """

    table: str
    key: Mapping[str, object]
    values: Mapping[str, object] | None


def no_rows(_stream_id: str, _state: Message, _events: Sequence[Message]) -> Sequence[Row]:
    """An aggregate without a read model."""
    return ()


@dataclass(frozen=True, slots=True)
class Aggregate(Generic[S]):
    """One kind of stream.

    Attributes:
        name: Stable name of the kind (``run``, ``model``); its streams are ``projects/{project}/{name}s/{id}``.
        state: The protobuf message class of the folded state.
        evolve: ``(state or None, event) -> state``; pure, and copies: a state is never changed in place.
        rows: ``(stream id, state after the events, events) -> read-model rows``; pure.
        tables: Every table that ``rows`` writes to; nobody else does, but for ``ahead``.
        ahead: Table -> SQL condition on its row ``live``: of rows that say for now more than the events do, since what
            they tell was acknowledged before its event. A rebuild takes these as they are.
        revision: Raised whenever ``evolve``, ``state`` or ``rows`` changes meaning. Stored states of another revision
            are folded anew from the events; read models of an older one are rebuilt by the first process that has the
            newer code, and the older code may append no more.
    """

    name: str
    state: type[S]
    evolve: Callable[[S | None, Message], S]
    rows: Callable[[str, S, Sequence[Message]], Sequence[Row]] = no_rows
    tables: tuple[str, ...] = ()
    ahead: Mapping[str, str] = field(default_factory=dict[str, str])
    revision: int = 1

    def owns(self, stream_id: str) -> bool:
        """Whether a stream is of this kind."""
        parts = stream_id.split("/", 3)
        return len(parts) == 4 and parts[2] == f"{self.name}s"
