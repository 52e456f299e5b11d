"""What happens is seen without loading a page again."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import httpx2 as httpx
import psutil
import pytest
from playwright.async_api import Page, expect

import headrace
from headrace_gateway.app import GRACE_S
from tests.console.conftest import Console

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

STOP_WITHIN_S = GRACE_S
"""A stream that held the stop up would hold it at least so long."""


async def test_an_event_appears_on_the_home_page_and_the_picture_follows(page: Page, console: Console) -> None:
    await page.goto(console.url)
    await expect(page.locator("#live")).to_have_attribute("data-state", "on")
    await page.evaluate("window.stays = true")
    count = page.locator('[data-stage="track"] .figure')
    before = await count.inner_text()

    with headrace.start_run("live") as run:
        run.log_metric("loss", 0.5, step=1)

    row = page.locator(f'#entry-rows tr.new:has-text("RunStarted"):has(a[href="/runs/{run.id}"])')
    await expect(row).to_be_visible()
    await expect(count).not_to_have_text(before)
    assert await page.evaluate("window.stays") is True


async def test_the_table_of_runs_and_a_runs_page_follow(page: Page, console: Console) -> None:
    await page.goto(f"{console.url}/runs?experiment=following")
    await expect(page.locator("#live")).to_have_attribute("data-state", "on")
    run = headrace.start_run("following")
    run.flush()
    link = page.locator(f'#runs a[href="/runs/{run.id}"]')
    await expect(link).to_be_visible()
    await link.click()
    await expect(page.locator("#summary .chip").first).to_have_text("running")

    run.log_metric("loss", 0.25, step=7)
    await expect(page.locator("#summary")).to_contain_text("0.25")
    run.finish()
    await expect(page.locator("#summary .chip").first).to_have_text("finished")


async def test_a_service_that_died_is_named_and_the_page_mends_itself(page: Page, console: Console) -> None:
    killed = console.stack.kill("monitor", by=signal.SIGSTOP)
    try:
        await page.goto(console.url)
        await expect(page.locator(".notice")).to_contain_text("monitor")
        await expect(page.locator('[data-stage="track"] .figure')).to_be_visible()
    finally:
        os.kill(killed, signal.SIGCONT)
    await page.goto(console.url)
    await expect(page.locator(".notice")).to_have_count(0)


async def test_an_open_stream_does_not_hold_the_stop_up(console: Console) -> None:
    token = console.operator().connection.token
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(base_url=console.url, headers=headers, timeout=10) as client,
        client.stream("GET", "/live") as stream,
    ):
        assert stream.status_code == 200
        lines = stream.aiter_lines()
        await anext(lines)
        pid = console.stack.stack.supervised["gateway"].pid
        assert pid is not None
        process = psutil.Process(pid)
        began = time.monotonic()
        console.stack.kill("gateway", by=signal.SIGTERM)
        await asyncio.to_thread(process.wait, 30)
        took_s = time.monotonic() - began
    console.stack.wait_ready("gateway", other_than=pid)

    assert took_s < STOP_WITHIN_S
