"""Charts and comparison of runs: all of those selected, on axes and scales of choice, live."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import pytest
from playwright.async_api import BrowserContext, Page, expect

import headrace
from headrace.api.tracking.v1 import resources_pb2 as runs
from headrace.api.tracking.v1 import service_pb2 as tracking
from tests.console.conftest import PARENT, Console
from tests.console.test_pages import complaints_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

LONG: Final = 100_000
SIX: Final = 6


@dataclass(frozen=True, slots=True)
class Charted:
    """Six runs of one experiment, and one with a hundred thousand points."""

    console: Console
    ids: list[str]
    long: str

    def address(self, rest: str = "") -> str:
        return f"{self.console.url}/runs/charts?experiment=charted{rest}"


@pytest.fixture(scope="session")
def charted(console: Console) -> Charted:
    ids: list[str] = []
    for place in range(SIX):
        with headrace.start_run("charted") as run:
            run.log_params({"depth": place, "lr": 10**-place, "model": ("forest", "linear")[place % 2]})
            for step in range(60):
                run.log_metrics({"train/loss": 3 / (step + 1 + place), "val/loss": 4 / (step + 1 + place)}, step=step)
            run.log_metric("val/loss", 1e6, step=60)
        ids.append(run.id)
    with headrace.start_run("long") as run:
        run.flush()
        points = [runs.MetricPoint(key="loss", value=math.sin(step / 500), step=step) for step in range(LONG)]
        with console.operator() as client:
            client.tracking.LogMetrics(
                tracking.LogMetricsRequest(command_id=str(uuid4()), run=f"{PARENT}/runs/{run.id}", points=points)
            )
    return Charted(console, ids, run.id)


async def settled(page: Page, cards: int) -> None:
    await expect(page.locator(".chart[data-points]")).to_have_count(cards)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_each_metric_has_a_card_with_all_runs_grouped_by_prefix(
    context: BrowserContext, charted: Charted, scheme: str
) -> None:
    page = await context.new_page()
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    complaints = complaints_of(page)
    await page.goto(charted.address())

    await settled(page, 2)
    await expect(page.locator(".chart-group > summary")).to_have_text(["train/", "val/"])
    for card in await page.locator(".chart").all():
        assert await card.get_attribute("data-lines") == str(SIX)
    await page.locator("[data-chart-filter]").fill("^VAL/(loss|f1)$")
    await expect(page.locator(".chart:visible")).to_have_count(1)
    assert complaints == []


async def test_the_choices_change_the_picture_and_stand_in_the_address(
    page: Page, context: BrowserContext, charted: Charted
) -> None:
    complaints = complaints_of(page)
    await page.goto(charted.address())
    await settled(page, 2)
    canvas = page.locator(".chart").nth(1).locator("canvas")
    seen = [await canvas.screenshot()]
    for choose in (
        lambda: page.locator("[name=clip]").check(),
        lambda: page.locator("[name=logy]").check(),
        lambda: page.locator("[name=logx]").check(),
        lambda: page.locator("[data-chart-smooth]").fill("0.9"),
        lambda: page.locator("[data-chart-x]").select_option("metric.train/loss"),
    ):
        await choose()
        await settled(page, 2)
        await page.wait_for_timeout(300)  # the picture of the new choice: nothing else tells that it is there
        seen.append(await canvas.screenshot())

    assert len({bytes(each) for each in seen}) == len(seen)
    other = await context.new_page()
    await other.goto(page.url)
    await settled(other, 2)
    assert await other.locator("[data-chart-x]").input_value() == "metric.train/loss"
    assert await other.locator("[name=logy]").is_checked()
    assert complaints == []


async def test_crosshair_and_zoom_are_shared_and_the_keyboard_zooms(page: Page, charted: Charted) -> None:
    complaints = complaints_of(page)
    await page.goto(charted.address())
    await settled(page, 2)
    over = page.locator(".chart .u-over").first
    await over.hover(position={"x": 120, "y": 60})
    for card in await page.locator(".chart").all():
        await expect(card.locator(".chart-legend b").first).to_be_visible()

    box = await over.bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + 50, box["y"] + 40)
    await page.mouse.down()
    await page.mouse.move(box["x"] + 120, box["y"] + 40, steps=4)
    await page.mouse.up()

    async def points() -> list[int]:
        cards = await page.locator(".chart").all()
        return [int(str(await each.get_attribute("data-points"))) for each in cards]

    await expect(page.locator("[data-chart-reset]")).to_be_enabled()
    assert all(count < SIX * 60 for count in await points())
    await page.locator("[data-chart-reset]").click()
    await expect(page.locator("[data-chart-reset]")).to_be_disabled()
    await page.locator(".chart").first.focus()
    await page.keyboard.press("+")
    await expect(page.locator("[data-chart-reset]")).to_be_enabled()
    await page.keyboard.press("0")
    await expect(page.locator("[data-chart-reset]")).to_be_disabled()
    assert complaints == []


async def test_a_hundred_thousand_points_are_drawn(page: Page, charted: Charted) -> None:
    complaints = complaints_of(page)
    await page.goto(f"{charted.console.url}/runs/charts?run={charted.long}&points=200000")
    await settled(page, 1)
    card = page.locator(".chart")
    assert await card.get_attribute("data-points") == str(LONG)
    first = await card.get_attribute("data-ms")
    await page.locator("[name=clip]").check()
    await expect(card).not_to_have_attribute("data-ms", str(first))

    print(f"\n{LONG} points: first picture {first} ms, the next {await card.get_attribute('data-ms')} ms")
    await page.locator("[name=points]").select_option("")
    await expect(card).to_have_attribute("data-points", re.compile(r"^(1\d{3}|2000)$"))
    assert complaints == []


async def test_lines_grow_while_a_run_goes_on(page: Page, charted: Charted) -> None:
    complaints = complaints_of(page)
    run = headrace.start_run("growing")
    for step in range(3):
        run.log_metric("loss", 1 / (step + 1), step=step)
    run.flush()
    await page.goto(f"{charted.console.url}/runs/charts?experiment=growing")
    await expect(page.locator("#live")).to_have_attribute("data-state", "on")
    await settled(page, 1)

    for step in range(3, 9):
        run.log_metric("loss", 1 / (step + 1), step=step)
    run.flush()

    await expect(page.locator(".chart")).to_have_attribute("data-points", "9")
    other = headrace.start_run("growing")
    for step in range(4):
        other.log_metric("loss", 2 / (step + 1), step=step)
    other.flush()
    await expect(page.locator(".chart")).to_have_attribute("data-lines", "2")
    run.finish()
    other.finish()
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_runs_side_by_side_show_what_differs_and_what_is_best(
    context: BrowserContext, charted: Charted, scheme: str
) -> None:
    page = await context.new_page()
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    complaints = complaints_of(page)
    await page.goto(f"{charted.console.url}/runs/compare?run={','.join(charted.ids)}")
    row = page.locator("#comparison tr", has_text="train/loss")
    await expect(row.locator("td.best")).to_have_count(1)
    await expect(row.locator("td").nth(2 + SIX - 1)).to_have_class("breaks tabular best")
    await row.get_by_role("button").click()
    await expect(row.locator("td").nth(2)).to_have_class("breaks tabular best")
    everything = await page.locator("#comparison tr:visible").count()
    await page.locator("[data-differences]").check()
    assert await page.locator("#comparison tr:visible").count() < everything
    await page.get_by_role("link", name="max", exact=True).click()
    await expect(page.locator("#comparison tr", has_text="val/loss").locator("td").nth(2)).to_contain_text("000")
    assert complaints == []


async def test_parallel_coordinates_keep_a_range_and_change_their_order(page: Page, charted: Charted) -> None:
    complaints = complaints_of(page)
    await page.goto(f"{charted.console.url}/runs/compare?run={','.join(charted.ids)}")
    parallel = page.locator("#parallel")
    await expect(parallel).to_have_attribute("data-kept", str(SIX))
    await expect(page.locator("#scatter circle")).to_have_count(SIX)
    drawn: Any = json.loads(str(await page.locator("#pictures").get_attribute("data-drawn-runs")))
    assert len(drawn["runs"]) == SIX
    titles = parallel.get_by_role("button")
    await expect(titles.first).to_have_text("depth")

    await titles.first.focus()
    await page.keyboard.press("ArrowUp")
    await expect(parallel).to_have_attribute("data-kept", "3")
    await expect(page.locator("#scatter circle")).to_have_count(3)
    await page.keyboard.press("ArrowRight")
    await expect(titles.nth(1)).to_have_text("depth")
    await expect(titles.nth(1)).to_be_focused()
    assert "axes=" in page.url

    box = await parallel.bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + 70, box["y"] + 60)
    await page.mouse.down()
    await page.mouse.move(box["x"] + 70, box["y"] + 200, steps=4)
    await page.mouse.up()
    await expect(page.locator("#kept")).to_contain_text("kept")
    assert complaints == []
