"""A stream folded from its events has the state and the rows that its commands left, whatever they were."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value
from hypothesis import given
from hypothesis import strategies as st

from headrace_kit.eventstore import Aggregate, MemoryEventStore, Row
from headrace_kit.rebuild.folding import Event, Folded, StreamFold
from tests.support.counters import SOURCE, TYPES, add, evolve, stream


def awkward_rows(stream_id: str, state: Int64Value, events: Sequence[Message]) -> Sequence[Row]:
    """Rows that depend on how events came in commands, name some columns only, go away and come back."""
    key = {"name": stream_id}
    size = len(events)
    rows = [Row("commands", {"name": stream_id, "size": size}, {"last": state.value})]
    if state.value % 3 == 0:
        rows.append(Row("counters", key, None))
    elif size == 1:
        rows.append(Row("counters", key, {"total": state.value}))
    else:
        rows += [Row("counters", key, {"note": f"{size} at once"}), Row("counters", key, {"total": state.value})]
    return rows


AWKWARD = Aggregate("counter", Int64Value, evolve, awkward_rows, tables=("counters", "commands"))
COMMANDS = st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(-3, 3), min_size=1, max_size=4)), max_size=12)


async def appended(commands: Sequence[tuple[int, Sequence[int]]]) -> MemoryEventStore:
    store = MemoryEventStore(SOURCE, TYPES)
    for name, numbers in commands:
        await add(store, name, *numbers, aggregate=AWKWARD)
    return store


async def folded(store: MemoryEventStore, name: int) -> Folded | None:
    fold = StreamFold(AWKWARD, stream(name))
    events = await store.read_stream(stream(name))
    for event in events:
        assert event.message is not None
        fold.add(Event(event.version, event.hlc, event.meta, event.message))
        if event.version % 2 == 0 and event.version == len(events):
            fold.finish()  # looking at it changes nothing
    return fold.finish() if events else None


def merged(found: Sequence[Row], table: str) -> dict[tuple[object, ...], Mapping[str, object]]:
    return {tuple(row.key.values()): {**row.key, **row.values} for row in found if row.table == table and row.values}


@given(COMMANDS)
def test_the_fold_is_what_the_commands_left(commands: Sequence[tuple[int, Sequence[int]]]) -> None:
    store = asyncio.run(appended(commands))
    names = {name for name, _ in commands}
    streams = {name: asyncio.run(folded(store, name)) for name in names}
    rows = [row for each in streams.values() if each is not None for row in each.rows]

    for name, found in streams.items():
        loaded = asyncio.run(store.load(AWKWARD, stream(name)))
        assert loaded is not None
        assert found is not None
        assert (found.state, found.version) == (loaded[0].SerializeToString(deterministic=True), loaded[1])
    for table, key in (("counters", ("name",)), ("commands", ("name", "size"))):
        live = {tuple(row[each] for each in key): row for row in store.rows(table)}
        assert merged(rows, table) == live
