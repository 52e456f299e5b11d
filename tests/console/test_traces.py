"""Traces in a real browser: found by a filter, and one as a waterfall whose spans open."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from playwright.async_api import BrowserContext, Page, expect

from headrace.api.tracking.v1.service_pb2 import LogSpansRequest
from tests.console.conftest import HOSTILE, PARENT, Console, command_id
from tests.console.test_pages import complaints_of
from tests.support.spans import span, trace_id

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@dataclass(frozen=True, slots=True)
class Traced:
    """A trace with spans of every kind, and one that failed."""

    console: Console
    whole: str
    failed: str

    @property
    def address(self) -> str:
        return f"{self.console.url}/traces/{self.whole}"


@pytest.fixture(scope="session")
def traced(console: Console) -> Traced:
    whole, failed = trace_id(), trace_id()
    spans = [
        span(whole, 1, name="answer", took_s=4, mlflow__spanInputs={"question": HOSTILE}, mlflow__spanOutputs="so"),
        span(whole, 2, parent=1, name="retrieve", start_s=1, took_s=1, mlflow__spanType="RETRIEVER", top_k=3),
        span(whole, 3, parent=2, name=HOSTILE, start_s=1.5, took_s=0.25),
        span(whole, 4, parent=1, name="call", start_s=2, took_s=2, failed=True, model="small"),
        span(failed, 1, name="broken", took_s=9, start_s=60, failed=True),
    ]
    spans[3].status_message = "it did not answer"
    spans[3].events.add(name="exception", time_ns=spans[3].end_time_ns, attributes={"message": '"too late\\n at all"'})
    request = LogSpansRequest(
        command_id=command_id(),
        experiment=f"{PARENT}/experiments/asked",
        run=f"{PARENT}/runs/{console.runs[0]}",
        spans=spans,
    )
    with console.operator() as client:
        assert client.tracking.LogSpans(request).count == 5
    return Traced(console, whole, failed)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800])
async def test_the_pages_render_without_complaint(
    context: BrowserContext, traced: Traced, scheme: str, width: int
) -> None:
    page = await context.new_page()
    await page.set_viewport_size({"width": width, "height": 900})
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    complaints = complaints_of(page)
    for address, heading in ((f"{traced.console.url}/traces", "Traces"), (traced.address, "answer")):
        await page.goto(address)
        await expect(page.locator("h1")).to_contain_text(heading)
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), address
        await expect(page).not_to_have_title("taken")
    assert complaints == []


async def test_traces_are_found_and_opened(page: Page, traced: Traced) -> None:
    await page.goto(f"{traced.console.url}/runs/{traced.console.runs[0]}")
    await page.get_by_role("link", name="its traces").click()
    await expect(page.locator("tbody tr")).to_have_count(2)
    await page.locator("input[name=filter]").fill('status = "ERROR" and duration_s > 8')
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator("tbody tr")).to_have_count(1)
    await expect(page.locator("tbody tr")).to_contain_text("9 s")
    await page.locator("input[name=filter]").fill("colour = 3")
    await page.get_by_role("button", name="Search").click()
    await expect(page.get_by_role("alert")).to_contain_text("found 'colour' at character")
    await page.locator("input[name=filter]").fill('span.attribute.top_k = 3 and name = "answer"')
    await page.get_by_role("button", name="Search").click()
    await page.get_by_role("link", name="answer", exact=True).click()
    await expect(page).to_have_url(traced.address)


async def test_a_trace_is_a_waterfall_whose_spans_open(page: Page, traced: Traced) -> None:
    await page.goto(traced.address)
    spans = page.locator("details.span")
    await expect(spans).to_have_count(4)
    names = await page.locator(".span-name").all_text_contents()
    assert [each.split()[0] for each in names] == ["answer", "retrieve", HOSTILE.split()[0], "call"]
    assert [await each.text_content() for each in await page.locator(".span-took").all()] == [
        "4 s",
        "1 s",
        "250 ms",
        "2 s",
    ]
    bars = page.locator("details.span .span-bar rect")
    assert [float(await each.get_attribute("x") or "") for each in await bars.all()] == [0, 250, 375, 500]
    assert [float(await each.get_attribute("width") or "") for each in await bars.all()] == [1000, 250, 62.5, 500]
    await expect(spans.nth(3)).not_to_contain_text("too late", use_inner_text=True)
    await spans.nth(3).locator("summary").click()
    opened = spans.nth(3).locator(".span-body")
    await expect(opened).to_contain_text("it did not answer")
    await expect(opened).to_contain_text("too late\n at all")
    await expect(opened).to_contain_text("small")
    await spans.nth(0).locator("summary").click()
    await expect(spans.nth(0).locator(".span-body")).to_contain_text(HOSTILE[:20])
    await expect(page).not_to_have_title("taken")
