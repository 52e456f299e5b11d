"""A run's page: charts, the machine, logs, files and their previews, code, environment, lineage, how to do it again."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest
from playwright.async_api import BrowserContext, Page, expect

import headrace
from headrace.api.tracking.v1.resources_pb2 import ARTIFACT_KIND_DIFF
from tests.console.conftest import Console
from tests.console.test_pages import complaints_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

DIFF = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-old = 1\n+new = '<b>2</b>'\n"
TABLE = 'name,delay\n"Smith, ""Jo""",12\n<img src=x onerror=alert(1)>,7\n'


@dataclass(frozen=True, slots=True)
class Told:
    """A run that recorded something of every kind."""

    console: Console
    id: str

    @property
    def address(self) -> str:
        return f"{self.console.url}/runs/{self.id}"


@pytest.fixture(scope="session")
def told(console: Console) -> Told:
    with headrace.start_run("told") as run:
        run.log_params({"depth": 3})
        for step in range(20):
            run.log_metrics({"val/loss": 1 / (step + 1), "system/cpu": 50.0 + step}, step=step)
        run.log_bytes(b"epoch 1\nepoch 2 <script>\n", "logs/stdout.txt", media_type="text/plain")
        run.log_bytes(TABLE.encode(), "delays.csv", media_type="text/csv")
        run.log_bytes(b'{"a": [1]}', "notes.json", media_type="application/json")
        run.log_bytes(DIFF.encode(), "code/own.diff", media_type="text/x-diff", kind=ARTIFACT_KIND_DIFF)
        run.log_bytes(b"x" * 300_000, "long.txt", media_type="text/plain")
        run.log_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "picture.svg", media_type="image/svg+xml")
        run.log_bytes(b"\x00\x01", "weights.bin", media_type="application/octet-stream")
    return Told(console, run.id)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_parts_of_a_run_are_there_and_reached_by_their_names(
    context: BrowserContext, told: Told, scheme: str
) -> None:
    page = await context.new_page()
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    complaints = complaints_of(page)
    await page.goto(told.address)
    tabs = page.locator(".tabs a")
    await expect(tabs).to_have_count(9)
    for place in range(9):
        await tabs.nth(place).focus()
        await page.keyboard.press("Enter")
        part = page.locator(str(await tabs.nth(place).get_attribute("href")))
        await expect(part).to_be_in_viewport()

    await expect(page.locator("#metrics .chart[data-points]")).to_have_count(1)
    await expect(page.locator('#system .chart[data-key="system/cpu"][data-points]')).to_have_count(1)
    await expect(page.locator("#logs .log[data-preview]")).to_contain_text("epoch 2 <script>")
    await expect(page.locator("#lineage .node-here")).to_contain_text("run")
    await expect(page.locator("#reproduce pre")).to_contain_text("pip install -r requirements.txt")
    await expect(page.locator("#environment")).to_contain_text("Python")
    assert complaints == []


async def test_files_are_previewed_as_what_they_are_and_stay_text(page: Page, told: Told) -> None:
    complaints = complaints_of(page)
    await page.goto(told.address)

    async def previewed(name: str) -> None:
        await page.locator("#artifacts tr", has_text=name).first.get_by_text("preview", exact=True).click()

    await previewed("delays.csv")
    rows = page.locator("#artifacts .preview tbody tr")
    await expect(rows.first.locator("td")).to_have_text(['Smith, "Jo"', "12"])
    await expect(rows.nth(1)).to_contain_text("<img src=x onerror=alert(1)>")
    await previewed("notes.json")
    await expect(page.locator("#artifacts pre", has_text='"a"')).to_have_text('{\n  "a": [\n    1\n  ]\n}')
    await page.locator("#code summary", has_text="what was not committed").last.click()
    await expect(page.locator("#code .diff .added", has_text="new")).to_have_text("+new = '<b>2</b>'\n")
    await previewed("long.txt")
    await expect(page.locator("#artifacts tr", has_text="long.txt")).to_contain_text("The first 256 KiB")
    await expect(page.locator(".pictures img")).to_have_count(1)
    assert complaints == []


async def test_bytes_of_a_run_are_served_without_rights(context: BrowserContext, told: Told) -> None:
    for path, kind in (
        ("picture.svg", "image/svg+xml"),
        ("delays.csv", "text/plain; charset=utf-8"),
        ("weights.bin", "application/octet-stream"),
    ):
        answer = await context.request.get(f"{told.address}/artifacts/{path}?head=20")
        assert answer.headers["content-type"] == kind
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert ("attachment" in answer.headers.get("content-disposition", "")) is (path == "weights.bin")
        assert len(await answer.body()) <= 20
    packages = await context.request.get(f"{told.address}/requirements.txt")
    assert "==" in await packages.text()


async def test_what_a_run_writes_appears_while_it_writes(page: Page, console: Console) -> None:
    complaints = complaints_of(page)
    run = headrace.start_run("talks")
    print("first <b>line</b>")
    sys.stderr.write("10 %\r20 %\r30 %\n\x1b[31mred\x1b[0m\n")
    run.flush()
    await page.goto(f"{console.url}/runs/{run.id}")
    output = page.locator("#logs .output")
    await expect(output).to_contain_text("first <b>line</b>")
    await expect(output.locator(".stderr").first).to_have_text("30 %\nred\n")
    await expect(page.locator("#logs [data-no-output]")).to_be_hidden()
    print("and one more")
    await expect(output).to_contain_text("and one more")
    await expect(output).not_to_have_attribute("data-ended", "yes")
    run.finish()
    await expect(output).to_have_attribute("data-ended", "yes")
    await expect(output).to_have_text("first <b>line</b>\n30 %\nred\nand one more\n")
    assert complaints == []


async def test_group_fork_and_origin_of_a_run_lead_to_them(page: Page, console: Console) -> None:
    complaints = complaints_of(page)
    group = 'folds "5" \\ b'
    with headrace.start_run("grouped", name="one", group=group) as first:
        first.log_metrics({"loss": 2.0}, step=0)
        first.log_metrics({"loss": 1.0}, step=1)
    with headrace.start_run("grouped", name="two", group=group, fork_from=first, at_step=0) as second:
        second.log_metric("loss", 0.5)
        second.set_tags({"headrace.reproduces": first.name})
    await page.goto(f"{console.url}/runs/{second.id}")
    await expect(page.locator("#metrics .chart[data-points='2']")).to_have_count(1)
    links = page.locator(f"#summary a[href='/runs/{first.id}']")
    await expect(links).to_have_count(2)
    await expect(page.locator(f"#lineage a[href='/runs/{first.id}']")).to_contain_text("forked from, at step 0")
    await page.goto(f"{console.url}/runs/{first.id}")
    await expect(page.locator(f"#lineage a[href='/runs/{second.id}']")).to_contain_text("fork, from step 0")
    await page.goto(f"{console.url}/runs/{second.id}")
    await page.locator("#summary a", has_text="folds").click()
    await expect(page.locator("#count")).to_have_text("2")
    await expect(page.locator("#runs tr[data-run]", has_text="one")).to_be_visible()
    assert complaints == []
