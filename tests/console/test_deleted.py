"""Runs that were put away: brought back, or purged after a preview and a typed word."""

from __future__ import annotations

from uuid import uuid4

import pytest
from playwright.async_api import BrowserContext, Page, expect

import headrace
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.errors import NotFound
from tests.console.conftest import PARENT, Console, command_id
from tests.console.test_pages import complaints_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def put_away(console: Console, name: str) -> str:
    with headrace.start_run("away", name=name, system_metrics=False) as run:
        run.log_metric("loss", 1.0)
        run.log_bytes(uuid4().bytes * 64, "own.bin")
    with console.operator() as client:
        client.tracking.DeleteRun(service.DeleteRunRequest(command_id=command_id(), run=run.name))
    return run.id


def is_there(console: Console, run: str) -> bool:
    try:
        with console.operator() as client:
            client.tracking.GetRun(service.GetRunRequest(name=f"{PARENT}/runs/{run}"))
    except NotFound:
        return False
    return True


async def test_runs_come_back_or_go_for_good(page: Page, console: Console) -> None:
    complaints = complaints_of(page)
    back, gone = put_away(console, "back"), put_away(console, "gone")
    await page.goto(f"{console.url}/runs")
    await page.get_by_role("link", name="put away").click()
    await expect(page.locator("#restore tbody tr", has_text="gone")).to_contain_text("KiB")
    await page.get_by_label("Choose back").check()
    await page.get_by_role("button", name="Bring the chosen back").click()
    await expect(page.locator("#restore tbody tr", has_text="back")).to_have_count(0)
    await expect(page.locator("#restore tbody tr", has_text="gone")).to_have_count(1)

    await page.locator("[name=age]").select_option("720")
    await page.get_by_role("button", name="What would be freed?").click()
    await expect(page.locator("#found")).to_contain_text("Nothing was put away that long ago")
    await page.locator("[name=age]").select_option("0")
    await page.get_by_role("button", name="What would be freed?").click()
    await expect(page.locator("#found")).to_contain_text("KiB")
    phrase = await page.locator("#purge label code").inner_text()
    await page.locator("[name=confirm]").fill("yes")
    await page.get_by_role("button", name="Purge them for good").click()
    await expect(page.get_by_role("alert")).to_contain_text(f"type '{phrase}'")
    assert is_there(console, gone)

    put_away(console, "later")  # after the moment that was looked at: it stays
    await page.locator("[name=confirm]").fill(phrase)
    await page.get_by_role("button", name="Purge them for good").click()
    await expect(page.locator("#purged")).to_contain_text("gone.")
    await expect(page.locator("#purged")).to_contain_text("KiB were freed")
    await expect(page.locator("#restore tbody tr")).to_have_count(1)
    await expect(page.locator("#restore tbody tr")).to_contain_text("later")
    assert (is_there(console, back), is_there(console, gone)) == (True, False)
    assert [each for each in complaints if "/runs/deleted/purge" not in each and "400" not in each] == []


async def test_what_changed_since_the_preview_is_shown_again(page: Page, console: Console) -> None:
    first, second = put_away(console, "one"), put_away(console, "two")
    await page.goto(f"{console.url}/runs/deleted")
    await page.locator("[name=age]").select_option("0")
    await page.get_by_role("button", name="What would be freed?").click()
    phrase = await page.locator("#purge label code").inner_text()
    with console.operator() as client:
        client.tracking.RestoreRun(service.RestoreRunRequest(command_id=command_id(), run=f"{PARENT}/runs/{first}"))
    await page.locator("[name=confirm]").fill(phrase)
    await page.get_by_role("button", name="Purge them for good").click()

    await expect(page.get_by_role("alert")).to_contain_text("has changed since you looked")
    assert await page.locator("#purge label code").inner_text() != phrase
    assert is_there(console, second)


async def test_nothing_is_purged_without_the_forms_token(context: BrowserContext, console: Console) -> None:
    run = put_away(console, "forged")
    for action in ("purge", "restore", "preview"):
        answer = await context.request.post(f"{console.url}/runs/deleted/{action}", form={"run": run, "age": "0"})
        assert answer.status == 403
    assert is_there(console, run)
