"""Subscriptions against real servers of logs in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from headrace import errors, events
from headrace.api.monitor.v1.events_pb2 import AlertRaised
from headrace.api.registry.v1.events_pb2 import VersionPromoted
from headrace.connection import Connection
from headrace.events import Delivery, Event, MemoryCursor, Subscription, SubscriptionConfig
from tests.support.subscribing import START, Logs, served_logs, until_true


@pytest.fixture
async def logs(tmp_path: Path) -> AsyncIterator[Logs]:
    async with served_logs(tmp_path, "monitor", "registry") as served:
        yield served


def subscribed(logs: Logs, **given: Any) -> Subscription:
    arguments: dict[str, Any] = {"connection": logs.connection, "cursor": MemoryCursor(), **given}
    return events.subscribe("test", **arguments)


async def took(subscription: Subscription, count: int) -> list[Event]:
    """The next so many, acknowledged."""

    def work() -> list[Event]:
        found: list[Event] = []
        for _ in range(count):
            delivery = subscription.take(20)
            assert delivery is not None
            with delivery as event:
                found.append(event)
        return found

    return await asyncio.to_thread(work)


async def closed(subscription: Subscription) -> None:
    await asyncio.to_thread(subscription.close)


def said(found: list[Event]) -> list[str]:
    """What each event names: an alert's summary, a version's id."""
    texts: list[str] = []
    for event in found:
        if isinstance(event.message, AlertRaised):
            texts.append(event.message.alert.summary)
        elif isinstance(event.message, VersionPromoted):
            texts.append(event.message.version.rpartition("/")[2])
        else:
            texts.append("?")
    return texts


async def test_the_past_of_all_services_comes_in_one_order(logs: Logs) -> None:
    for number in range(300):
        await (logs.promote(str(number)) if number % 3 else logs.raise_alert(str(number)))
    subscription = subscribed(logs, start="beginning")
    found = await took(subscription, 300)
    await closed(subscription)
    assert said(found) == [str(number) for number in range(300)]
    assert [event.order for event in found] == sorted(event.order for event in found)


async def test_what_comes_follows_the_past_and_now_is_without_the_past(logs: Logs) -> None:
    await logs.promote("1")
    whole, fresh = subscribed(logs, start="beginning"), subscribed(logs)
    assert said(await took(whole, 1)) == ["1"]
    assert await asyncio.to_thread(fresh.take, 0.5) is None
    for text in ("a", "b", "c"):
        await logs.raise_alert(text)
    assert said(await took(whole, 3)) == said(await took(fresh, 3)) == ["a", "b", "c"]
    await closed(whole)
    await closed(fresh)


async def test_a_moment_is_where_it_begins(logs: Logs) -> None:
    for number in range(1, 21):  # each a second after the one before
        await (logs.promote(str(number)) if number % 2 else logs.raise_alert(str(number)))
    for start in ("2026-03-01T12:00:15Z", "2026-03-01T14:00:15+02:00", START.replace(second=15)):
        subscription = subscribed(logs, start=start)
        assert said(await took(subscription, 6)) == ["15", "16", "17", "18", "19", "20"]
        await closed(subscription)


async def test_positions_are_where_it_begins(logs: Logs) -> None:
    for number in range(1, 5):
        await logs.promote(str(number))
        await logs.raise_alert(f"a{number}")
    subscription = subscribed(logs, start={"registry": 4, "monitor": 3})
    assert said(await took(subscription, 3)) == ["a3", "4", "a4"]
    await closed(subscription)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"types": [AlertRaised]}, ["a", "other"]),
        ({"types": ["headrace.registry.v1.VersionPromoted"]}, ["1", "2", "3"]),
        ({"services": "registry", "project": "default"}, ["1", "2"]),
        ({"project": "default", "stream": "models/n"}, ["2"]),
        ({"stream": "projects/p/"}, ["other", "3"]),
        ({"types": [AlertRaised, VersionPromoted], "project": "p"}, ["other", "3"]),
    ],
)
async def test_filters_leave_out_what_is_not_wanted(logs: Logs, given: dict[str, Any], expected: list[str]) -> None:
    await logs.promote("1")
    await logs.raise_alert("a")
    await logs.promote("2", model="n")
    await logs.raise_alert("other", project="p")
    await logs.promote("3", project="p")
    subscription = subscribed(logs, start="beginning", **given)
    assert said(await took(subscription, len(expected))) == expected
    assert await asyncio.to_thread(subscription.take, 0.3) is None
    await closed(subscription)


async def test_an_unknown_type_comes_raw(logs: Logs) -> None:
    await logs.add("registry", "projects/default/models/m", Int64Value(value=5))
    subscription = subscribed(logs, start="beginning")
    [event] = await took(subscription, 1)
    await closed(subscription)
    assert (event.message, Int64Value.FromString(event.data).value) == (None, 5)


async def test_only_what_was_acknowledged_is_passed_by_the_cursor(logs: Logs, tmp_path: Path) -> None:
    for number in range(1, 7):
        await logs.promote(str(number))
    path = tmp_path / "cursor.json"
    subscription = subscribed(logs, start="beginning", cursor=path, services="registry")
    taken = [await asyncio.to_thread(subscription.take, 20) for _ in range(5)]
    given = [each for each in taken if isinstance(each, Delivery)]
    for index in (3, 0, 1):  # 3 is not acknowledged: what follows it waits for it
        given[index].ack()
    await closed(subscription)
    again = subscribed(logs, start="now", cursor=str(path), services="registry")
    assert said(await took(again, 4)) == ["3", "4", "5", "6"]
    await closed(again)
    assert again.positions == {}
    with pytest.raises(errors.FailedPrecondition, match="closed"):
        given[4].ack()


async def test_an_error_in_the_block_does_not_acknowledge(logs: Logs) -> None:
    await logs.promote("1")
    cursor = MemoryCursor()
    subscription = subscribed(logs, start="beginning", cursor=cursor, services="registry")

    def refuse(_: Event) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(subscription.run, refuse)
    await closed(subscription)
    assert cursor.positions.get("registry", 1) == 1


async def test_now_stays_where_it_was_when_nothing_was_taken(logs: Logs, tmp_path: Path) -> None:
    first = subscribed(logs, cursor=tmp_path / "c.json")
    assert await asyncio.to_thread(first.take, 0.5) is None
    await closed(first)
    await logs.raise_alert("while away")
    second = subscribed(logs, cursor=tmp_path / "c.json")
    assert said(await took(second, 1)) == ["while away"]
    await closed(second)


async def test_a_service_that_restarts_is_followed_on(logs: Logs) -> None:
    await logs.promote("1")
    subscription = subscribed(logs, start="beginning", services="registry")
    assert said(await took(subscription, 1)) == ["1"]
    for number in range(2, 32):
        await logs.servers["registry"].stop()
        await logs.promote(str(number))
        await logs.servers["registry"].start()
        assert said(await took(subscription, 1)) == [str(number)]
    await closed(subscription)


async def test_a_service_that_is_away_does_not_hold_up_the_others(logs: Logs) -> None:
    await logs.servers["registry"].stop()
    await logs.promote("late")
    await logs.raise_alert("early")
    subscription = subscribed(logs, start="beginning")
    assert said(await took(subscription, 1)) == ["early"]
    await logs.servers["registry"].start()
    assert said(await took(subscription, 1)) == ["late"]
    await closed(subscription)


async def test_buffers_are_bounded(logs: Logs) -> None:
    for number in range(1, 101):
        await logs.promote(str(number))
    config = SubscriptionConfig(buffer=3, max_unacknowledged=4)
    subscription = subscribed(logs, start="beginning", services="registry", config=config)
    assert said(await took(subscription, 10)) == [str(number) for number in range(1, 11)]
    for _ in range(4):
        assert await asyncio.to_thread(subscription.take, 20)
    with pytest.raises(errors.FailedPrecondition, match="4 deliveries are not acknowledged"):
        await asyncio.to_thread(subscription.take, 20)
    await closed(subscription)


async def test_close_lets_the_taker_go(logs: Logs) -> None:
    subscription = subscribed(logs)
    taking = asyncio.create_task(asyncio.to_thread(list[Delivery], subscription))
    await until_true(lambda: subscription.positions)
    await closed(subscription)
    async with asyncio.timeout(10):
        assert await taking == []


async def test_close_may_come_at_any_moment(logs: Logs) -> None:
    for _ in range(20):
        subscription = subscribed(logs)
        taking = asyncio.create_task(asyncio.to_thread(subscription.take, 20))
        await closed(subscription)
        [came] = await asyncio.gather(taking, return_exceptions=True)
        assert came is None or (isinstance(came, errors.FailedPrecondition) and came.reason == "CLOSED")


async def test_what_no_repeat_mends_is_raised(logs: Logs) -> None:
    beyond = subscribed(logs, cursor=MemoryCursor({"registry": 50}), services="registry")
    with pytest.raises(errors.FailedPrecondition) as caught:
        await asyncio.to_thread(beyond.take, 20)
    assert caught.value.reason == "CURSOR_BEYOND_LOG"
    await closed(beyond)
    stranger = Connection(addresses=logs.connection.addresses, token="wrong")
    refused = subscribed(logs, connection=stranger)
    with pytest.raises(errors.Unauthenticated):
        await asyncio.to_thread(refused.take, 20)
    await closed(refused)


async def test_a_cursor_is_for_one_subscription_at_a_time(logs: Logs, tmp_path: Path) -> None:
    first, second = (subscribed(logs, cursor=tmp_path / "c.json") for _ in range(2))
    await asyncio.to_thread(first.__enter__)
    with pytest.raises(errors.FailedPrecondition) as caught:
        second.__enter__()
    assert caught.value.reason == "CURSOR_IN_USE"
    await closed(first)
    await closed(second)


def test_a_damaged_cursor_is_never_taken_for_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    for content in ('{"version": 1, "next"', '{"version": 2, "next": {}}', "[]"):
        path.write_text(content)
        with pytest.raises(errors.FailedPrecondition) as caught:
            events.FileCursor(path).open()
        assert caught.value.reason == "CURSOR_UNREADABLE"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": "../x"}, "name"),
        ({"services": "tracing"}, "services"),
        ({"services": []}, "services"),
        ({"types": "headrace.monitor.v1.AlertRaised"}, "types"),
        ({"types": ["AlertRaised"]}, "types"),
        ({"types": [f"headrace.a.v1.T{n}" for n in range(101)]}, "types"),
        ({"project": "projects/p"}, "project"),
        ({"project": "p", "stream": "projects/q/models/m"}, "stream"),
        ({"stream": "x" * 501}, "stream"),
        ({"start": "yesterday"}, "start"),
        ({"start": "2026-03-01T12:00:00"}, "start"),
        ({"start": {"registry": 0}}, "start['registry']"),
    ],
)
def test_what_can_not_be_subscribed_to_is_refused_by_name(given: dict[str, Any], field: str) -> None:
    connection = Connection(addresses={"registry": "127.0.0.1:1"}, token="")
    arguments: dict[str, Any] = {"name": "x", "connection": connection, **given}
    with pytest.raises(errors.InvalidArgument) as caught:
        events.subscribe(**arguments)
    assert caught.value.field == field


async def test_the_asynchronous_one_is_the_same(logs: Logs) -> None:
    for number in range(1, 4):
        await logs.promote(str(number))
    cursor = MemoryCursor()
    found: list[Event] = []
    async with events.subscribe_async(
        "a", connection=logs.connection, cursor=cursor, start="beginning", services="registry"
    ) as subscription:
        async for delivery in subscription:
            async with delivery as event:
                found.append(event)
            if len(found) == 3:
                break
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(subscription)
        await logs.promote("4")  # a take that was cut short loses nothing
        found.append((await anext(subscription)).event)
    assert said(found) == ["1", "2", "3", "4"]
    assert cursor.positions == {"registry": 4}


async def test_alerts_are_a_subscription_of_one_type(logs: Logs) -> None:
    await logs.promote("1")
    await logs.raise_alert("other", project="p")
    await logs.raise_alert("drift")
    with events.alerts("a", connection=logs.connection, cursor=MemoryCursor(), start="beginning") as subscription:
        assert said(await took(subscription, 1)) == ["drift"]
