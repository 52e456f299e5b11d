"""Webhooks in the console: made with a secret that is shown once, tried, listed, dead letters made due again."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import BrowserContext, Page, expect

from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.registry.v1.resources_pb2 import WEBHOOK_DELIVERY_STATE_DEAD, WEBHOOK_DELIVERY_STATE_DELIVERED
from tests.console.conftest import HOSTILE, PARENT, Console, command_id
from tests.console.test_pages import complaints_of
from tests.support.eventually import eventually
from tests.support.receiving import receiving

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def create_model(console: Console, name: str) -> None:
    with console.operator() as client:
        client.registry.CreateModel(service.CreateModelRequest(command_id=command_id(), name=f"{PARENT}/models/{name}"))


async def make(page: Page, console: Console, name: str, url: str) -> None:
    await page.goto(f"{console.url}/webhooks")
    if not await page.locator("#create [name=name]").is_visible():
        await page.get_by_text("Make one").click()
    await page.locator("#create [name=name]").fill(name)
    await page.locator("#create [name=url]").fill(url)
    await page.get_by_label("ModelCreated").check()
    await page.get_by_role("button", name="Make the webhook").click()


async def test_a_webhook_is_made_tried_stopped_and_deleted(page: Page, console: Console) -> None:
    complaints = complaints_of(page)
    with receiving() as receiver:
        await make(page, console, HOSTILE, receiver.url)
        secret = await page.locator("#secret code").inner_text()
        assert secret.startswith("whsec_")
        await page.get_by_role("button", name="Send it").click()
        await expect(page.locator("#done")).to_contain_text("The target took it: answered 204")
        assert receiver.received[0].signed_by(secret)
        assert secret not in await page.content()
        create_model(console, "hooked")
        eventually(lambda: len(receiver.received) == 2)
        await page.goto(page.url.removesuffix("/test"))
        await expect(page.locator("#deliveries tbody tr")).to_contain_text("ModelCreated")

        await page.get_by_role("button", name="Another secret").click()
        other = await page.locator("#secret code").inner_text()
        assert other != secret
        await page.get_by_role("button", name="Disable").click()
        await expect(page.locator("h1")).to_contain_text("disabled")
        await page.get_by_role("button", name="Enable").click()
        await expect(page.locator("h1")).to_contain_text("active")

        await page.goto(f"{console.url}/webhooks")
        await expect(page.locator("#webhooks tbody tr")).to_contain_text(HOSTILE[:8])
        await page.locator("#webhooks .row-link").click()
        await page.get_by_text("Delete it").click()
        await page.get_by_role("button", name="Delete", exact=False).last.click()
        await expect(page.locator("#webhooks")).to_have_count(0)
    assert complaints == []


async def test_a_target_that_may_not_be_reached_is_refused_at_its_field(page: Page, console: Console) -> None:
    await make(page, console, "metadata", "http://169.254.169.254/latest")

    fault = page.locator("#create .field[data-fault]")
    await expect(fault.locator(".fault")).to_contain_text("169.254.169.254")
    await expect(fault.locator("[name=url]")).to_have_value("http://169.254.169.254/latest")
    await expect(page.locator("#create [name=name]")).to_have_value("metadata")
    await expect(page.get_by_label("ModelCreated")).to_be_checked()


async def test_dead_letters_are_listed_and_made_due_again(page: Page, console: Console) -> None:
    with receiving() as receiver:
        receiver.answer = lambda _: 500
        await make(page, console, "failing", receiver.url)
        await expect(page.locator("#secret")).to_be_visible()
        hook = str(await page.locator("h1 + .copy code").inner_text())
        for name in ("dead-1", "dead-2"):
            create_model(console, name)
        with console.operator() as client:
            letters = service.ListDeliveriesRequest(
                parent=f"{PARENT}/webhooks/{hook}", state=WEBHOOK_DELIVERY_STATE_DEAD
            )
            eventually(lambda: len(client.webhooks.ListDeliveries(letters).deliveries) == 2)

        await page.goto(f"{console.url}/webhooks")
        await page.locator("#webhooks tr", has_text="failing").get_by_role("link", name="2").click()
        rows = page.locator("#deliveries tbody tr")
        await expect(rows).to_have_count(2)
        await expect(rows.first).to_contain_text("500")
        receiver.answer = lambda _: 204
        await rows.first.get_by_role("button", name="again").click()
        await expect(page.locator("#done")).to_contain_text("1 is due again")
        await page.goto(f"{console.url}/webhooks/{hook}?dead=on")
        await page.get_by_role("button", name="Make all due again").click()
        await expect(page.locator("#done")).to_contain_text(re.compile(r"[12] (is|are) due again"))
        with console.operator() as client:
            eventually(lambda: not client.webhooks.ListDeliveries(letters).deliveries)
            done = service.ListDeliveriesRequest(
                parent=f"{PARENT}/webhooks/{hook}", state=WEBHOOK_DELIVERY_STATE_DELIVERED
            )
            eventually(lambda: len(client.webhooks.ListDeliveries(done).deliveries) == 2)


async def test_a_webhook_is_not_made_without_the_forms_token(context: BrowserContext, console: Console) -> None:
    fields: dict[str, str | float | bool] = {
        "name": "forged",
        "url": "https://example.org/",
        "secret": "s" * 20,
        "command_id": command_id(),
    }
    answer = await context.request.post(f"{console.url}/webhooks", form=fields)
    assert answer.status == 403
    with console.operator() as client:
        listed = client.webhooks.ListWebhooks(service.ListWebhooksRequest(parent=PARENT)).webhooks
    assert "forged" not in [each.display_name for each in listed]
