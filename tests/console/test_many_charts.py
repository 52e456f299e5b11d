"""Charts of more runs than anybody counts: all of them are drawn, the nearest is told and marked."""

from __future__ import annotations

import asyncio
import os
import struct
from typing import Final

import httpx2 as httpx
import orjson
import pytest
from playwright.async_api import Page, expect

from headrace.connection import find
from tests.console.conftest import Console
from tests.console.test_pages import complaints_of
from tests.support.manyruns import record_runs

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

COUNT: Final = int(os.environ.get("HEADRACE_CONSOLE_CHARTED", "1200"))
POINTS: Final = 60


@pytest.fixture(scope="session")
def crowd(console: Console) -> list[str]:
    return asyncio.run(record_runs(find(console.data), "crowd", COUNT, points=POINTS, seed=7))


async def test_every_run_is_drawn_and_the_nearest_is_marked(page: Page, console: Console, crowd: list[str]) -> None:
    complaints = complaints_of(page)
    await page.goto(f"{console.url}/runs/charts?experiment=crowd")
    cards = page.locator(".chart[data-points]")
    await expect(cards).to_have_count(2)
    await expect(page.locator("#charted")).to_contain_text(f"{COUNT:,} runs".replace(",", "\u202f"))
    for card in await cards.all():
        assert await card.get_attribute("data-lines") == str(COUNT)
        assert int(str(await card.get_attribute("data-points"))) == COUNT * POINTS
    print(f"\n{COUNT} lines, {COUNT * POINTS} points: {await cards.first.get_attribute('data-ms')} ms")
    await expect(cards.first.locator(".chart-legend")).to_have_text(f"{COUNT:,} runs".replace(",", "\u202f"))

    await cards.first.locator(".u-over").hover(position={"x": 40, "y": 60})
    await expect(cards.first.locator(".chart-legend b")).to_have_count(6)
    await expect(cards.first.locator("canvas.marked")).to_have_count(1)
    await page.mouse.move(5, 5)
    await expect(cards.first.locator("canvas.marked")).to_have_count(0)

    await page.locator("[name=points]").select_option("lttb")
    await expect(cards.first).to_have_attribute("data-lines", str(COUNT))
    assert "points=lttb" in page.url
    assert complaints == []


async def test_lines_are_thinned_where_they_are_stored_in_the_way_asked_for(console: Console, crowd: list[str]) -> None:
    with console.operator() as operator:
        headers = {"Authorization": f"Bearer {operator.connection.token}"}
    async with httpx.AsyncClient(base_url=console.url, headers=headers, timeout=60) as client:
        asked = {"experiment": "crowd", "key": "val/loss", "points": "10"}
        for how in ("", "minmax", "lttb"):
            answer = await client.get("/runs/series", params={**asked, "downsample": how})
            length = struct.unpack("<I", answer.content[:4])[0]
            heads = orjson.loads(answer.content[4 : 4 + length])
            assert {name for name, _ in heads} == set(crowd)
            assert {count for _, count in heads} <= ({10} if how == "lttb" else set(range(2, 11)))
        refused = await client.get("/runs/series", params={**asked, "downsample": "every10th"})
        assert refused.status_code == 400
