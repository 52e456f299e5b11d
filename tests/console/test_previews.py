"""Pictures, sounds, figures and pages that runs stored, shown without any right of this site."""

from __future__ import annotations

import json

import numpy as np
import pytest
from playwright.async_api import BrowserContext, Locator, Page, expect

import headrace
from tests.console.conftest import Console
from tests.console.test_pages import complaints_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

GREEDY = """<!doctype html><p id="mine">mine</p><script>
document.querySelector('#mine').textContent = 'ran';
const tries = {
  cookie: () => document.cookie.length >= 0,
  storage: () => localStorage.length >= 0,
  parent: () => { parent.document.title = 'taken'; return true; },
  top: () => { top.location.href = '/enter'; return true; },
};
for (const [name, each] of Object.entries(tries)) {
  let got = 'refused';
  try { if (each()) got = 'got it'; } catch {}
  document.body.append(Object.assign(document.createElement('p'), {id: name, textContent: got}));
}
fetch('/runs').then(() => 'got it', () => 'refused').then((text) => {
  document.body.append(Object.assign(document.createElement('p'), {id: 'fetch', textContent: text}));
});
</script>"""


async def opened(page: Page, path: str) -> Locator:
    """The row of a file, its preview open."""
    row = page.locator("#artifacts tbody tr", has=page.get_by_role("link", name=path))
    await row.get_by_text("preview").click()
    return row


async def test_pictures_sounds_and_tables_are_shown(page: Page, console: Console) -> None:
    complaints = complaints_of(page)
    with headrace.start_run("media", system_metrics=False) as run:
        run.log_image(np.linspace(0, 1, 64).reshape(8, 8), "samples.png", step=10)
        run.log_audio(np.sin(np.arange(800) / 5), "tone.wav", sample_rate=8000)
        run.log_table({"word": ["one", "two"], "count": [1, 2]}, "words.csv")
        run.log_bytes(
            json.dumps({"columns": ["a", "b"], "data": [[1, None], ["<b>", {"c": 2}]]}).encode(),
            "table.json",
            media_type="application/json",
        )
    await page.goto(f"{console.url}/runs/{run.id}")
    picture = page.locator(".pictures img")
    await picture.scroll_into_view_if_needed()
    await expect(picture).to_have_js_property("complete", True)
    await expect(picture).to_have_js_property("naturalWidth", 8)
    sound = page.locator(".sounds audio")
    await expect(sound).to_be_visible()
    await sound.evaluate("each => each.load()")
    await sound.evaluate("each => { each.preload = 'auto'; }")
    await expect(sound).to_have_js_property("duration", 0.1)
    for path, cells in (("words.csv", ["one", "1", "two", "2"]), ("table.json", ["1", "", "<b>", '{"c":2}'])):
        row = await opened(page, path)
        await expect(row.locator("table td")).to_have_text(cells)
    assert complaints == []


async def test_a_figure_of_plotly_is_drawn_in_a_frame(page: Page, console: Console) -> None:
    go = pytest.importorskip("plotly.graph_objects")
    complaints = complaints_of(page)
    with headrace.start_run("media", system_metrics=False) as run:
        run.log_figure(go.Figure(go.Scatter(x=[1, 2, 3], y=[3, 1, 2])), "curve.html")
    await page.goto(f"{console.url}/runs/{run.id}")
    await opened(page, "curve.html")
    await expect(page.frame_locator("iframe.framed").locator(".scatterlayer path.js-line")).to_have_count(1)
    assert complaints == []


async def test_a_stored_page_runs_without_any_right(context: BrowserContext, console: Console) -> None:
    page = await context.new_page()
    with headrace.start_run("media", system_metrics=False) as run:
        run.log_bytes(GREEDY.encode(), "greedy.html", media_type="text/html")
    await page.goto(f"{console.url}/runs/{run.id}")
    title = await page.title()
    await expect(page.locator("iframe")).to_have_count(0)
    await opened(page, "greedy.html")
    frame = page.frame_locator("iframe.framed")
    await expect(frame.locator("#mine")).to_have_text("ran")
    for name in ("cookie", "storage", "parent", "top", "fetch"):
        await expect(frame.locator(f"#{name}")).to_have_text("refused")
    assert await page.title() == title
    assert page.url == f"{console.url}/runs/{run.id}"

    address = f"{console.url}/runs/{run.id}/artifacts/greedy.html?framed"
    await page.goto(address)  # by itself it is text
    await expect(page.locator("#mine")).to_have_count(0)
    answer = await context.request.get(address)
    assert answer.headers["content-type"].startswith("text/plain")
    assert "allow-scripts" not in answer.headers["content-security-policy"]
