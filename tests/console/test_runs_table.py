"""The table of runs: ten thousand of them, columns, order, search, groups, views in the address, many at once."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from typing import Final

import pytest
from playwright.async_api import BrowserContext, Page, Route, expect

from headrace.api.tracking.v1.service_pb2 import GetRunKeysRequest, GetRunRequest
from headrace.connection import find
from tests.console.conftest import PARENT, Console
from tests.console.test_pages import complaints_of
from tests.support.manyruns import record_runs

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

COUNT: Final = int(os.environ.get("HEADRACE_CONSOLE_RUNS", "10000"))
WHOLE: Final = 210
"""Runs of them that have parameters and metrics."""
SCROLL: Final = """async () => {
    const box = document.querySelector('#runs');
    const frames = [];
    let last = performance.now();
    for (let step = 0; step < 120; step += 1) {
        box.scrollTop += box.scrollHeight / 120;
        await new Promise(requestAnimationFrame);
        const now = performance.now();
        frames.push(now - last);
        last = now;
    }
    frames.sort((a, b) => a - b);
    return {median: frames[60], p95: frames[114], rows: document.querySelectorAll('#runs tr').length};
}"""


@dataclass(frozen=True, slots=True)
class Many:
    """A console before many runs, of the experiment ``sweep``."""

    console: Console
    ids: list[str]

    def address(self, rest: str = "") -> str:
        return f"{self.console.url}/runs?experiment=sweep{rest}"


@pytest.fixture(scope="session")
def many(console: Console) -> Many:
    connection = find(console.data)
    return Many(console, asyncio.run(record_runs(connection, "sweep", COUNT, whole=WHOLE)))


def row(page: Page, name: str) -> object:
    return page.locator("#runs tr[data-run]", has_text=name)


async def test_ten_thousand_runs_scroll_while_few_are_drawn_and_fetched(page: Page, many: Many) -> None:
    complaints = complaints_of(page)
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url) if "/runs/rows" in request.url else None)
    await page.goto(many.address("&order=display_name"))
    await expect(page.locator("#count")).to_have_text(f"{COUNT:,}".replace(",", "\u202f"))
    await expect(page.locator("#runs tr[data-run]").first).to_contain_text("r00000")

    seen = await page.evaluate(SCROLL)

    print(f"\n{COUNT} runs, from top to bottom in 120 frames: median {seen['median']:.1f} ms, p95 {seen['p95']:.1f} ms")
    await expect(page.locator("#runs tr[data-run]").last).to_contain_text(f"r{COUNT - 1:05}")
    assert seen["rows"] < 80
    assert len(fetched) < COUNT / 100 / 2
    assert complaints == []


async def test_the_keyboard_moves_through_all_rows_and_chooses(page: Page, many: Many) -> None:
    await page.goto(many.address("&order=display_name"))
    await expect(page.locator("#runs tr[data-run]").first).to_contain_text("r00000")
    for _ in range(40):
        await page.keyboard.press("j")
    await expect(page.locator("#runs tr.at")).to_contain_text("r00039")
    await expect(page.locator("#runs tr.at a")).to_be_focused()
    await page.keyboard.press("x")
    await page.keyboard.press("k")
    await page.keyboard.press("x")
    await expect(page.locator("[data-compare]")).to_have_text("Compare 2")

    await page.locator("[data-compare]").click()

    await expect(page.locator("h1")).to_have_text("2 runs side by side")


async def test_a_column_chosen_while_a_search_is_under_way_does_not_lose_it(page: Page, many: Many) -> None:
    wanted, go_on = re.compile(r"/runs/keys\?.*linear"), asyncio.Event()

    async def hold(route: Route) -> None:
        await go_on.wait()
        await route.continue_()

    await page.goto(many.address())
    await expect(page.locator("#runs tr[data-run]").first).to_be_visible()
    await page.route(wanted, hold)
    async with page.expect_request(wanted):
        await page.locator("[data-search]").fill('param.model = "linear"')
    await page.locator("#pick").click()
    await page.locator("#columns").get_by_label("model", exact=True).check()
    go_on.set()

    await expect(page.locator("#count")).to_have_text("70")
    await expect(page.locator("#runs tr[data-run]").first).to_contain_text("linear")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_an_address_restores_the_whole_view(context: BrowserContext, many: Many, scheme: str) -> None:
    page = await context.new_page()
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    complaints = complaints_of(page)
    await page.goto(many.address())
    await page.locator("[data-search]").fill('param.model = "linear"')
    await page.locator("#pick").click()
    for name in ("val/loss min", "team", "model"):
        await page.locator("#columns").get_by_label(name, exact=True).check()
    await page.keyboard.press("Escape")
    await page.locator("#runs").get_by_role("button", name="val/loss min").click()
    await expect(page.locator('#runs th[aria-sort="descending"]')).to_contain_text("val/loss min")
    await expect(page.locator("#count")).to_have_text("70")
    await expect(page.locator("#runs tr[data-run]").first).to_contain_text("linear")

    async def text(of: Page) -> list[str]:
        return [await each.inner_text() for each in await of.locator("#runs th, #runs tr[data-run] td.name").all()]

    other = await context.new_page()
    await other.goto(page.url)
    await expect(other.locator("#runs tr[data-run]").first).to_contain_text("linear")

    assert await text(other) == await text(page)
    assert await other.locator("[data-search]").input_value() == 'param.model = "linear"'
    assert complaints == []


async def test_the_query_box_completes_keys_and_points_at_what_is_wrong(page: Page, many: Many) -> None:
    complaints = complaints_of(page)
    await page.goto(many.address())
    await expect(page.locator("#runs tr[data-run]").first).to_be_visible()
    await page.keyboard.press("/")
    await page.keyboard.type("val/lo")
    await expect(page.locator("#completions li")).to_have_text(["metric.val/loss"])
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await page.keyboard.type(" < 1e9 and param.dep")
    await page.keyboard.press("Tab")
    await page.keyboard.type(' = "3"')
    assert await page.locator("[data-search]").input_value() == 'metric.val/loss < 1e9 and param.depth = "3"'
    await expect(page.locator("#count")).to_have_text("30")

    await page.locator("[data-search]").fill('status = "RUNNING" und 3')

    await expect(page.get_by_role("alert")).to_contain_text("can not be read")
    pointed = await page.locator(".pointed").inner_text()
    assert pointed.splitlines()[1].index("^") == pointed.index("und")
    assert complaints == []


async def test_groups_have_mean_and_deviation_and_lead_to_their_runs(page: Page, many: Many) -> None:
    complaints = complaints_of(page)
    await page.goto(many.address("&filter=metric.val%2Floss+is+not+null&column=metric.val%2Floss.last"))
    await page.get_by_label("group by").select_option("param.model")
    groups = page.locator("#runs tbody tr")
    await expect(groups).to_have_count(3)
    await expect(groups.first).to_contain_text("±")
    assert "group=param.model" in page.url

    await groups.first.get_by_role("link").click()

    await expect(page.locator("#count")).to_have_text("70")
    assert complaints == []


async def test_chosen_runs_are_tagged_and_deleted_together(page: Page, many: Many) -> None:
    complaints = complaints_of(page)
    await page.goto(many.address('&filter=param.depth+%3D+"4"'))
    await expect(page.locator("#count")).to_have_text("30")
    await page.get_by_role("button", name="choose all").click()
    await page.get_by_role("button", name="Tag", exact=True).click()
    await page.locator("#do-tag").get_by_label("Key").fill("kept")
    await page.locator("#do-tag").get_by_label("Value").fill("yes")
    await page.locator("#do-tag").get_by_role("button", name="Set the tag").click()
    await expect(page.locator(".head")).to_contain_text("30 runs changed")
    with many.console.operator() as client:
        keys = client.tracking.GetRunKeys(GetRunKeysRequest(parent=PARENT, filter='tag.kept = "yes"'))
        assert keys.run_count == 30

    boxes = page.locator("#runs input[name=run]")
    chosen = [str(await boxes.nth(place).get_attribute("value")) for place in (0, 1)]
    for place in (0, 1):
        await boxes.nth(place).check()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.locator("#do-delete").get_by_role("button", name="Delete").click()

    await expect(page.locator("#count")).to_have_text("28")
    with many.console.operator() as client:
        for each in chosen:
            assert client.tracking.GetRun(GetRunRequest(name=f"{PARENT}/runs/{each}")).run.HasField("delete_time")
    assert complaints == []


async def test_the_last_metric_shows_how_it_went(page: Page, many: Many) -> None:
    complaints = complaints_of(page)
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url) if "/runs/series" in request.url else None)
    await page.goto(many.address("&order=display_name&column=metric.val/f1.last&column=metric.val/loss.last"))

    drawn = page.locator("#runs svg.spark polyline[points]")
    await expect(drawn.first).to_be_visible()
    assert await page.locator("#runs svg.spark").first.get_attribute("data-key") == "val/loss"
    assert len(str(await drawn.first.get_attribute("points")).split()) == 3
    rows = await page.locator("#runs tr[data-run]").count()
    await expect(drawn).to_have_count(rows)
    assert len(fetched) <= 1 + rows // 50
    assert complaints == []
