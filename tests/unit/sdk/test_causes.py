"""Chains of causes: their shape, and the walk that finds them without reading whole logs."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from uuid import UUID

import pytest

from headrace.api.audit.v1.resources_pb2 import EventMeta, LogEntry
from headrace.causes import MAX_CAUSES, Effects, Find, Story, trace
from headrace.errors import NotFound
from headrace.story import Link, chain


def event(number: int, cause: int = 0, *, source: str = "headrace/registry", hlc: int = 0) -> LogEntry:
    meta = EventMeta(causation_id=name(cause) if cause else "")
    return LogEntry(source=source, position=number, event_id=name(number), hlc=hlc or number, meta=meta)


def name(number: int) -> str:
    return str(UUID(int=number))


def shape(links: Iterable[Link]) -> list[tuple[int, int]]:
    return [(UUID(link.entry.event_id).int, link.depth) for link in links]


class Logs:
    """The logs of a platform, asked as services are; notes what was asked."""

    def __init__(self, *entries: LogEntry) -> None:
        self.entries = {entry.event_id: entry for entry in entries}
        self.asked: list[Find | Effects] = []

    def tell(self, number: int, *, most: int = 1000) -> Story:
        walk = trace(name(number), most=most)
        ask = next(walk)
        while True:
            self.asked.append(ask)
            try:
                ask = walk.send(self.answer(ask))
            except StopIteration as end:
                told: Story = end.value
                return told

    def answer(self, ask: Find | Effects) -> Sequence[LogEntry]:
        if isinstance(ask, Find):
            return [self.entries[ask.event_id]] if ask.event_id in self.entries else []
        assert 0 < len(ask.event_ids) <= MAX_CAUSES
        found = [each for each in self.entries.values() if each.meta.causation_id in ask.event_ids]
        return found[: ask.most + 1]


TREE = (event(1), event(2, 1), event(3, 1), event(4, 2), event(5, 4), event(6, 3), event(7))


def test_a_chain_has_each_effect_below_its_cause_and_nothing_else() -> None:
    expected = [(1, 0), (2, 1), (4, 2), (5, 3), (3, 1), (6, 2)]

    for number, _ in expected:
        assert shape(chain(TREE, name(number))) == expected
    assert shape(chain(TREE, name(7))) == [(7, 0)]


def test_effects_of_one_cause_stand_by_clock_then_source_then_position() -> None:
    log = [
        event(1, hlc=1),
        event(9, 1, hlc=5),
        event(8, 1, hlc=7),
        event(3, 1, source="headrace/serving", hlc=5),
        event(2, 1, hlc=5),
    ]

    assert shape(chain(log, name(1))) == [(1, 0), (2, 1), (9, 1), (3, 1), (8, 1)]


def test_a_chain_begins_where_its_first_cause_is_not_known() -> None:
    assert shape(chain(TREE[1:], name(5))) == [(2, 0), (4, 1), (5, 2)]


def test_a_chain_of_an_unknown_event_is_not_found() -> None:
    with pytest.raises(NotFound, match=name(99)):
        chain(TREE, name(99))


@pytest.mark.parametrize("number", range(1, 8))
def test_the_walk_finds_what_the_whole_log_tells(number: int) -> None:
    told = Logs(*TREE).tell(number)

    assert (told.links, told.more) == (chain(TREE, name(number)), False)


def test_the_walk_agrees_with_the_whole_log_on_any_forest() -> None:
    chance = random.Random(7)
    log = [event(1), *(event(number, chance.randrange(number)) for number in range(2, 400))]

    for number in chance.sample(range(1, 400), 40):
        logs = Logs(*log)
        assert logs.tell(number).links == chain(log, name(number))
        asked = [each for ask in logs.asked if isinstance(ask, Effects) for each in ask.event_ids]
        assert len(asked) == len(set(asked)), "an event was asked for twice"


def test_a_walk_that_is_cut_keeps_the_causes_then_what_the_event_led_to() -> None:
    deep = [event(1), event(2, 1), event(3, 2), *(event(number, 1) for number in range(10, 40)), event(50, 3)]

    told = Logs(*deep).tell(3, most=6)

    assert told.more
    assert shape(told.links)[:4] == [(1, 0), (2, 1), (3, 2), (50, 3)]
    assert len(told.links) == 6
    assert not Logs(*deep).tell(3, most=len(deep)).more


def test_a_walk_up_is_cut_too() -> None:
    line = [event(1), *(event(number, number - 1) for number in range(2, 30))]

    told = Logs(*line).tell(29, most=5)

    assert told.more
    assert shape(told.links) == [(25, 0), (26, 1), (27, 2), (28, 3), (29, 4)]


def test_a_walk_to_an_unknown_event_finds_nothing() -> None:
    with pytest.raises(NotFound):
        Logs(*TREE).tell(99)


def test_many_effects_are_asked_for_in_batches() -> None:
    wide = [event(1), *(event(number, 1) for number in range(2, 352)), event(500, 351)]
    logs = Logs(*wide)

    assert logs.tell(1).links == chain(wide, name(1))
    assert [len(ask.event_ids) for ask in logs.asked if isinstance(ask, Effects)] == [1, 100, 100, 100, 50, 1]
