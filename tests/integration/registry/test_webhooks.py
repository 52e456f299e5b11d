"""Webhooks on a real database and to a real server: at least once, whoever dies when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.auth import Principal, set_principal
from headrace_kit.context import CommandContext
from headrace_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.eventtypes import EventTypes
from headrace_kit.lease import Leadership
from headrace_kit.postgres import Database, create_pool, migrate
from headrace_kit.sequencer import Sequencer
from headrace_kit.webhooks import Allowed, Sender
from headrace_local.testing import FreshDatabase
from headrace_registry import domain, names
from headrace_registry.delivering import AT_ONCE_EACH, Courier, Patience, fan_out
from headrace_registry.events import EVENT_TYPES
from headrace_registry.store import MODEL
from headrace_registry.webhook_rpc import WebhookServicer
from headrace_registry.webhookstore import DEAD, DELIVERED, PENDING, WebhookStore
from tests.support.receiving import SECRET, receiving

PARENT = "projects/default"
LOOPBACK = Allowed.parse("127.0.0.0/8")
CONTEXT: Any = None  # no servicer of webhooks looks at it


class World:
    """The parts of a registry that webhooks need, driven by hand."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = PostgresEventStore(database, "headrace/registry", EventTypes(*EVENT_TYPES))
        self.tables = WebhookStore(database)
        self.fan_out = fan_out(self.store)
        self.sequencer = Sequencer(database, "headrace/registry")
        self.sender = Sender(LOOPBACK, timeout_s=5)
        self.rpc = WebhookServicer(self.store, self.tables, self.sender)

    def courier(self, *, attempts: int = 3, base_s: float = 0.01, timeout_s: float = 5) -> Courier:
        sender = Sender(LOOPBACK, timeout_s=timeout_s)
        return Courier(self.store, self.tables, sender, Patience(attempts, base_s, 1.0))

    async def create(self, url: str, **fields: Any) -> resources.Webhook:
        request = service.CreateWebhookRequest(command_id=str(uuid4()), parent=PARENT, secret=SECRET)
        request.webhook.MergeFrom(resources.Webhook(display_name="ours", url=url, **fields))
        return (await self.rpc.CreateWebhook(request, CONTEXT)).webhook

    async def model(self, name: str, *, display_name: str = "") -> None:
        """An event, and its note to webhooks."""
        request = service.CreateModelRequest(
            name=f"{PARENT}/models/{name}", display_name=display_name, description="of flights", tags={"a": "b"}
        )
        context = CommandContext(command_id=uuid4(), actor="persons/operator", now=datetime.now(UTC))
        await self.store.execute(
            MODEL,
            request.name,
            context=context,
            request=request,
            decide=lambda state: domain.decide_create(state, request, context),
            respond=lambda model: model,
        )
        await self.follow()

    async def follow(self) -> None:
        fence = await Leadership(self.database, "log", ttl_s=0).take()
        assert fence is not None
        while await self.sequencer.step(fence) or self.sequencer.tail_age_s:
            await asyncio.sleep(0)
        while await self.fan_out.step():
            pass

    async def states(self) -> list[int]:
        found = await self.tables.deliveries("default", webhook="", state=0, after=None, limit=1000)
        return [each.state for each in reversed(found)]

    async def deliver(self, until: Callable[[list[int]], bool], courier: Courier | None = None) -> None:
        running = asyncio.create_task((courier or self.courier()).run())
        try:
            async with asyncio.timeout(20):
                while not until(await self.states()):
                    assert not running.done(), running.exception()
                    await asyncio.sleep(0.01)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def world(database: FreshDatabase) -> AsyncIterator[World]:
    await migrate(database.migration_dsn, ["headrace_registry"], service_dsn=database.service_dsn)
    pool = await create_pool(database.service_dsn)
    set_principal(Principal("persons/operator", frozenset({"operator"})))
    yield World(pool)
    await pool.close()


def settled(states: list[int]) -> bool:
    return bool(states) and PENDING not in states


async def test_an_event_is_delivered_signed_and_told_in_full(world: World) -> None:
    with receiving() as receiver:
        await world.create(receiver.url)
        await world.model("delays")
        await world.deliver(settled)

    [came] = receiver.received
    assert came.signed_by(SECRET)
    assert came.headers["content-type"] == "application/cloudevents+json"
    told = came.json
    assert told["type"] == "headrace.registry.v1.ModelCreated"
    assert (told["subject"], told["actor"]) == (f"{PARENT}/models/delays", "persons/operator")
    assert told["data"]["tags"] == {"a": "b"}
    assert UUID(came.id).version == 5


async def test_mlflows_payloads_have_mlflows_headers(world: World) -> None:
    with receiving() as receiver:
        await world.create(
            receiver.url,
            payload=resources.WEBHOOK_PAYLOAD_MLFLOW,
            event_types=["registered_model.created"],
        )
        await world.model("delays")
        await world.deliver(settled)

    [came] = receiver.received
    told = came.json
    assert (told["entity"], told["action"]) == ("registered_model", "created")
    assert told["data"] == {"name": "delays", "tags": {"a": "b"}, "description": "of flights"}
    assert came.headers["X-MLflow-Delivery-Id"] == came.id
    assert came.headers["X-MLflow-Signature"].startswith("v1,")


async def test_mlflows_payloads_have_the_name_of_when_they_were_noted(world: World) -> None:
    answers = iter([500, 200])
    with receiving(lambda _: next(answers)) as receiver:
        await world.create(receiver.url, payload=resources.WEBHOOK_PAYLOAD_MLFLOW)
        await world.model("delays", display_name="Late flights")
        rename = service.RenameModelRequest(model=f"{PARENT}/models/delays", display_name="b")
        context = CommandContext(command_id=uuid4(), actor="persons/operator", now=datetime.now(UTC))
        await world.store.execute(
            MODEL,
            rename.model,
            context=context,
            request=rename,
            decide=lambda state: names.decide_rename(state, rename, context, guarded=False),
            respond=lambda model: model,
        )
        await world.follow()
        await world.deliver(settled)

    assert [each.json["data"]["name"] for each in receiver.received] == ["Late flights"] * 2
    assert await world.states() == [DELIVERED]


async def test_only_what_is_wanted_is_delivered(world: World) -> None:
    with receiving() as receiver:
        await world.model("before")
        await world.create(receiver.url, event_types=["ModelDeleted"])
        await world.create(receiver.url, model=f"{PARENT}/models/other")
        await world.create(receiver.url, status=resources.WEBHOOK_STATUS_DISABLED)
        wanting = await world.create(receiver.url, event_types=["ModelCreated"], model=f"{PARENT}/models/delays")
        await world.model("delays")
        found = await world.tables.deliveries("default", webhook="", state=0, after=None, limit=10)

    assert [(each.webhook, each.event_type) for each in found] == [(wanting.name, "ModelCreated")]


async def test_a_failure_is_repeated_under_the_same_id_until_it_works(world: World) -> None:
    answers = iter([500, 302, 204])
    with receiving(lambda _: next(answers), location="http://127.0.0.1:1/") as receiver:
        await world.create(receiver.url)
        await world.model("delays")
        await world.deliver(settled)

    assert len(receiver.received) == 3
    assert len(set(receiver.ids)) == 1
    assert len({each.body for each in receiver.received}) == 1
    assert await world.states() == [DELIVERED]


async def test_what_is_given_up_is_a_dead_letter_that_can_be_redriven(world: World) -> None:
    with receiving(lambda _: 410) as receiver:
        webhook = await world.create(receiver.url)
        await world.model("delays")
        await world.deliver(settled)
        assert len(receiver.received) == 3
        request = service.ListDeliveriesRequest(parent=webhook.name, state=resources.WEBHOOK_DELIVERY_STATE_DEAD)
        [dead] = (await world.rpc.ListDeliveries(request, CONTEXT)).deliveries
        assert (dead.attempts, dead.response_status) == (3, 410)
        assert "410" in dead.error

        receiver.answer = lambda _: 200
        again = service.RedriveDeliveryRequest(command_id=str(uuid4()), id=dead.id)
        due = (await world.rpc.RedriveDelivery(again, CONTEXT)).delivery
        assert (due.state, due.attempts) == (PENDING, 0)
        await world.deliver(settled)
        assert await world.states() == [DELIVERED]
        assert receiver.ids[-1] == dead.id
        with pytest.raises(FailedPrecondition):
            await world.rpc.RedriveDelivery(again, CONTEXT)


async def test_an_attempt_that_was_lost_is_made_again_by_another(world: World) -> None:
    with receiving() as receiver:
        await world.create(receiver.url)
        await world.model("delays")
        lease, far = timedelta(seconds=0.2), timedelta(hours=1)
        [lost] = await world.tables.claim(10, each=4, lease=lease, furthest=far, busy=())
        assert await world.tables.claim(10, each=4, lease=lease, furthest=far, busy=()) == []
        await world.deliver(settled)  # the one that claimed it first is gone: its lease ends
        assert not await world.tables.finish(lost, DEAD, status=0, error="too late")

    assert await world.states() == [DELIVERED]
    assert len(receiver.received) == 1


async def test_rivals_deliver_each_once_while_both_live(world: World) -> None:
    with receiving() as receiver:
        await world.create(receiver.url)
        for number in range(30):
            await world.model(f"m{number}")
        rival = asyncio.create_task(world.courier().run())
        await world.deliver(settled)
        rival.cancel()
        await asyncio.gather(rival, return_exceptions=True)

    assert len(receiver.received) == 30
    assert len(set(receiver.ids)) == 30


async def test_a_slow_target_holds_up_no_other(world: World) -> None:
    entered = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop.call_soon(entered.set)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with receiving() as receiver:
        slow = await world.create(f"http://127.0.0.1:{port}/")
        quick = await world.create(receiver.url)
        for number in range(AT_ONCE_EACH * 5):
            await world.model(f"m{number}")

        async def quick_ones() -> int:
            found = await world.tables.deliveries("default", webhook=quick.name, state=DELIVERED, after=None, limit=100)
            return len(found)

        running = asyncio.create_task(world.courier(timeout_s=15).run())
        async with asyncio.timeout(10):
            await entered.wait()
            while await quick_ones() < AT_ONCE_EACH * 5:
                await asyncio.sleep(0.01)
        waiting = await world.tables.deliveries("default", webhook=slow.name, state=PENDING, after=None, limit=100)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    server.close()

    assert len(waiting) == AT_ONCE_EACH * 5


async def test_the_fan_out_notes_each_event_once(world: World) -> None:
    with receiving() as receiver:
        await world.create(receiver.url)
        await world.model("delays")
        await world.database.execute("UPDATE consumer_positions SET position = 0")
        await world.follow()
        assert await world.states() == [PENDING]
        await asyncio.gather(*(fan_out(world.store).step() for _ in range(3)))
        assert await world.states() == [PENDING]


async def test_a_disabled_webhook_keeps_what_waits(world: World) -> None:
    with receiving() as receiver:
        webhook = await world.create(receiver.url)
        await world.model("first")
        await change(world, webhook, "status", status=resources.WEBHOOK_STATUS_DISABLED)
        await world.model("while it sleeps")
        assert await world.courier().step() == 0
        await change(world, webhook, "status", status=resources.WEBHOOK_STATUS_ACTIVE)
        await world.deliver(settled)

    assert [each.json["subject"] for each in receiver.received] == [f"{PARENT}/models/first"]


async def test_a_new_secret_signs_beside_the_one_before(world: World) -> None:
    with receiving() as receiver:
        webhook = await world.create(receiver.url)
        request = service.UpdateWebhookRequest(command_id=str(uuid4()), webhook=webhook, secret="another secret")
        await world.rpc.UpdateWebhook(request, CONTEXT)
        await world.rpc.UpdateWebhook(request, CONTEXT)  # a repeat rotates nothing
        await world.model("delays")
        await world.deliver(settled)

    [came] = receiver.received
    assert came.signed_by("another secret")
    assert came.signed_by(SECRET)


async def test_the_log_knows_neither_secret_nor_path(world: World) -> None:
    with receiving() as receiver:
        webhook = await world.create(f"{receiver.url}/t0ken-in-the-path")
        assert webhook.url.endswith("t0ken-in-the-path")
        await change(world, webhook, "url", url=f"{receiver.url}/an0ther")
        rotate = service.UpdateWebhookRequest(command_id=str(uuid4()), webhook=webhook, secret="r0tated-secret")
        await world.rpc.UpdateWebhook(rotate, CONTEXT)
        await world.rpc.DeleteWebhook(
            service.DeleteWebhookRequest(command_id=str(uuid4()), name=webhook.name),
            CONTEXT,
        )

    tables = await world.database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in tables:
        rows = await world.database.fetch(f"SELECT t::text FROM {table} t")  # bytea is shown as hex
        for word in ("t0ken-in-the-path", "an0ther", "r0tated-secret", SECRET):
            assert not [row for row in rows if word in row[0] or word.encode().hex() in row[0]], (table, word)


async def test_a_deleted_webhook_is_gone_with_what_waited(world: World) -> None:
    with receiving() as receiver:
        webhook = await world.create(receiver.url)
        await world.model("delays")
        request = service.DeleteWebhookRequest(command_id=str(uuid4()), name=webhook.name)
        await world.rpc.DeleteWebhook(request, CONTEXT)
        assert await world.states() == []
        assert await world.tables.target(webhook.name) is None
        with pytest.raises(NotFound):
            await world.rpc.GetWebhook(service.GetWebhookRequest(name=webhook.name), CONTEXT)
        assert (await world.rpc.DeleteWebhook(request, CONTEXT)).webhook.name == webhook.name
        await world.model("later")
        assert await world.states() == []


async def test_a_repeated_command_creates_one_webhook(world: World) -> None:
    with receiving() as receiver:
        request = service.CreateWebhookRequest(command_id=str(uuid4()), parent=PARENT, secret=SECRET)
        request.webhook.MergeFrom(resources.Webhook(display_name="ours", url=receiver.url))
        answers = [await world.rpc.CreateWebhook(request, CONTEXT) for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(await world.tables.page("default", after="", limit=10)) == 1


async def test_a_target_that_became_near_is_refused_at_delivery(world: World) -> None:
    with receiving() as receiver:
        await world.create(receiver.url)
        await world.model("delays")
        strict = Courier(world.store, world.tables, Sender(Allowed(), timeout_s=5), Patience(1, 0.01, 1.0))
        await world.deliver(settled, strict)

    assert receiver.received == []
    [dead] = await world.tables.deliveries("default", webhook="", state=DEAD, after=None, limit=10)
    assert "loopback" in dead.error


async def test_old_deliveries_are_forgotten(world: World) -> None:
    with receiving() as receiver:
        await world.create(receiver.url)
        await world.model("delays")
        await world.deliver(settled)
        assert await world.tables.forget_old() == 0
        await world.database.execute("UPDATE webhook_deliveries SET done_at = done_at - interval '8 days'")
        assert await world.tables.forget_old() == 1


async def test_a_trial_says_what_came_of_it(world: World) -> None:
    with receiving(lambda _: 200, body=b"thanks" * 1000) as receiver:
        webhook = await world.create(receiver.url)
        request = service.TestWebhookRequest(name=webhook.name, event_type="VersionPromoted")
        answer = await world.rpc.TestWebhook(request, CONTEXT)
        receiver.answer = lambda _: 500
        failed = await world.rpc.TestWebhook(request, CONTEXT)

    assert (answer.delivered, answer.response_status) == (True, 200)
    assert (failed.delivered, failed.response_status, len(failed.response_body)) == (False, 500, 1024)
    assert receiver.received[0].signed_by(SECRET)
    assert receiver.received[0].json["test"] == "true"


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest", "http://10.0.0.1/", "ftp://127.0.0.1/", "http://[::1]/"]
)
async def test_a_bad_url_is_refused_with_its_field_and_leaves_nothing(world: World, url: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await world.create(url)
    assert refused.value.field == "webhook.url"
    assert await world.store.database.fetchval("SELECT count(*) FROM events") == 0


async def change(world: World, webhook: resources.Webhook, path: str, **fields: Any) -> None:
    wanted = resources.Webhook(name=webhook.name, **fields)
    request = service.UpdateWebhookRequest(command_id=str(uuid4()), webhook=wanted)
    request.update_mask.paths.append(path)
    await world.rpc.UpdateWebhook(request, CONTEXT)
