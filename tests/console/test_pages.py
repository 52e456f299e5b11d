"""Every page in a real browser: it renders, says what it should, and nothing complains."""

from __future__ import annotations

import contextlib
import json
import re
import time

import pytest
from playwright.async_api import BrowserContext, ConsoleMessage, Page, Response, expect

from headrace.api.audit.v1.service_pb2 import GetEventRequest
from headrace.api.registry.v1.service_pb2 import (
    CreateModelRequest,
    RenameModelRequest,
    TrustKeyRequest,
    WithdrawKeyRequest,
)
from headrace.evidence.verifying import keys_of_platform
from headrace.packages.remote import sign
from headrace.verifier import Proof
from tests.console.conftest import HOSTILE, PARENT, POINTS, STEPS, WITHIN_S, Console, command_id
from tests.support.kit import until
from tests.support.signing import KeyPair

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PAGES = {
    "/": "The loop",
    "/runs": "Runs",
    "/runs/{run}": "run-",
    "/runs/{hostile}": "run-",
    "/runs/compare?run={run}&run={other}": "2 runs side by side",
    "/runs/charts?run={run},{other}": "Charts",
    "/traces": "Traces",
    "/runs/deleted": "Runs put away",
    "/models": "Models",
    "/models/delays": "delays",
    "/models/delays/versions/1": "delays v1",
    "/models/delays/gates?alias=production": "Gates of delays@production",
    "/endpoints": "Endpoints",
    "/drift": "Drift",
    "/drift/delays": "delays",
    "/pipelines": "Pipelines",
    "/pipelines/runs/{pipeline_run}": "retrain",
    "/events": "Events",
    "/webhooks": "Webhooks",
    "/events/of/models/delays": "delays through time",
    "/events/of/pipelineRuns/{pipeline_run}": "through time",
}


def address(console: Console, path: str) -> str:
    run, other, hostile = console.runs
    return console.url + path.format(run=run, other=other, hostile=hostile, pipeline_run=console.pipeline_run)


def complaints_of(page: Page) -> list[str]:
    """What the browser complains about on a page from now on: errors, warnings, refused or failed loads."""
    found: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            found.append(f"{message.type}: {message.text}")

    def on_response(response: Response) -> None:
        if response.status >= 400:
            found.append(f"{response.status}: {response.url}")

    page.on("console", on_console)
    page.on("response", on_response)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800])
async def test_every_page_renders_without_complaint_and_without_scrolling_sideways(
    context: BrowserContext, console: Console, scheme: str, width: int
) -> None:
    page = await context.new_page()
    complaints = complaints_of(page)
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await page.set_viewport_size({"width": width, "height": 900})
    for path, title in PAGES.items():
        await page.goto(address(console, path))
        await expect(page.locator("h1")).to_contain_text(title)
        await expect(page.locator("#live")).to_have_attribute("data-state", "on")
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert complaints == [], path


async def test_a_run_of_ten_thousand_points_is_drawn_soon(page: Page, console: Console) -> None:
    complaints = complaints_of(page)
    began = time.monotonic()
    await page.goto(address(console, "/runs/{run}"))
    await page.locator("[data-charts] .chart[data-drawn] canvas").wait_for()
    took_s = time.monotonic() - began

    await expect(page.locator("#summary")).to_contain_text(f"{POINTS:,}".replace(",", "\u202f"))
    assert took_s < WITHIN_S / 4
    assert complaints == []


async def test_the_graph_shows_every_step_and_a_click_its_log(page: Page, console: Console) -> None:
    await page.goto(address(console, "/pipelines/runs/{pipeline_run}"))

    await expect(page.locator(".node")).to_have_count(len(STEPS))
    await expect(page.locator(".edge")).to_have_count(sum(len(needs) for needs in STEPS.values()))
    await expect(page.locator('.node[data-status="completed"]')).to_have_count(len(STEPS))
    await page.locator('.node[data-step="train"]').click()
    await expect(page.locator("#log-of-train")).to_contain_text("train")


async def test_an_events_page_tells_what_caused_it_and_what_it_caused(page: Page, console: Console) -> None:
    await page.goto(address(console, "/pipelines/runs/{pipeline_run}"))
    await page.get_by_role("link", name="story").click()

    story = page.locator(".story li")
    await expect(story.first).to_contain_text("PipelineRunStarted")
    await expect(page.locator(".story li:not(.depth-0)").first).to_be_visible()
    await page.locator(".story a", has_text="PipelineRunSucceeded").first.click()
    await expect(page.locator("h1")).to_contain_text("PipelineRunSucceeded")
    await expect(page.locator(".story li.here")).to_have_count(1)


async def test_the_state_of_any_moment_has_an_address_of_its_own(
    page: Page, context: BrowserContext, console: Console
) -> None:
    complaints = complaints_of(page)
    await page.goto(address(console, "/events/of/pipelineRuns/{pipeline_run}"))
    await expect(page.locator(".timeline li[aria-current]")).to_contain_text("PipelineRunSucceeded")
    await expect(page.locator("#moment")).to_contain_text("PIPELINE_RUN_STATUS_SUCCEEDED")
    events = await page.locator(".timeline li").count()

    await page.locator("[data-slider]").focus()
    await page.keyboard.press("Home")

    await expect(page.locator("#moment h2").first).to_have_text("As it was")
    await expect(page.locator(".timeline li[aria-current]")).to_contain_text("PipelineRunStarted")
    await expect(page.locator(".timeline li.later")).to_have_count(events - 1)
    await expect(page.locator("#moment")).not_to_contain_text("PIPELINE_RUN_STATUS_SUCCEEDED")
    await page.wait_for_url("**at=**")
    other = await context.new_page()
    await other.goto(page.url)
    assert await other.locator("#moment").inner_text() == await page.locator("#moment").inner_text()
    await other.get_by_role("link", name="Event after").click()
    await expect(other.locator(".timeline li[aria-current]")).to_contain_text("StepLeased")
    await expect(other.locator("#moment")).to_contain_text("was ")
    await page.go_back()
    await expect(page.locator("#moment h2").first).to_have_text("As it is")
    assert complaints == []


async def test_before_it_was_made_there_is_no_state_and_a_wrong_moment_is_explained(
    page: Page, console: Console
) -> None:
    await page.goto(f"{console.url}/events/of/models/delays?at=2001-02-03T04:05:06Z")
    await expect(page.locator("#moment")).to_contain_text("Not there yet")
    await page.get_by_role("link", name="Event after").click()
    for made in ("ModelCreated", "VersionCreated", "VersionValidated"):
        await expect(page.locator(".timeline li[aria-current]")).to_contain_text(made)
        if made != "VersionValidated":
            await page.get_by_role("link", name="Event after").click()
    await expect(page.get_by_role("link", name="Event after")).to_have_count(0)
    for path in ("models/delays?at=yesterday", "models/delays?before=x", "models/none", "cats/tom", "models"):
        response = await page.goto(f"{console.url}/events/of/{path}")
        assert response is not None
        assert response.status in (400, 404), path
        assert "Traceback" not in await page.content()


async def test_an_event_is_verified_and_its_proof_holds_without_the_platform(page: Page, console: Console) -> None:
    complaints = complaints_of(page)
    await page.goto(f"{console.url}/events/of/models/delays")
    await page.locator(".timeline a", has_text="VersionValidated").first.click()
    event_id = page.url.rpartition("/")[2]

    async def verified() -> bool:
        await page.locator("#proof button").click()
        await page.locator("#proof .chip").wait_for()
        return "It stands in the log as it was signed" in await page.locator("#proof").inner_text()

    await until(verified, within_s=WITHIN_S)  # a checkpoint is signed every few seconds
    async with page.expect_download() as downloading:
        await page.get_by_role("link", name="Proof", exact=True).click()
    proof = Proof.from_json((await (await downloading.value).path()).read_text())
    with console.operator() as client:
        keys = keys_of_platform(client, "registry")
        entry = client.log("registry").GetEvent(GetEventRequest(event_id=event_id)).entry
    proved, _ = proof.check(keys)

    assert (proved.event_id, proved.data) == (event_id, entry.data)
    assert complaints == []


async def test_an_events_bytes_are_shown_and_downloaded(page: Page, console: Console) -> None:
    await page.goto(f"{console.url}/events/of/models/delays")
    await page.locator(".timeline a", has_text="VersionValidated").first.click()
    with console.operator() as client:
        entry = client.log("registry").GetEvent(GetEventRequest(event_id=page.url.rpartition("/")[2])).entry

    await page.locator("summary", has_text="Bytes").click()
    await expect(page.locator(".hex")).to_contain_text(entry.data[:16].hex(" "))
    async with page.expect_download() as downloading:
        await page.get_by_role("link", name="Bytes", exact=True).click()
    assert (await (await downloading.value).path()).read_bytes() == entry.data
    async with page.expect_download() as downloading:
        await page.get_by_role("link", name="JSON", exact=True).click()
    plain = json.loads((await (await downloading.value).path()).read_text())
    assert (plain["event_id"], plain["leaf"]) == (entry.event_id, entry.leaf.hex())
    assert plain["data"]["validation"]["check"] == "quality"


async def test_what_a_run_recorded_stays_text(page: Page, console: Console) -> None:
    run = console.runs[2]
    await page.goto(f"{console.url}/runs/{run}")
    await expect(page.locator("#summary .breaks").first).to_have_text(HOSTILE)
    await expect(page.locator("#summary .tag")).to_contain_text(HOSTILE)
    for path in ("bad.svg", "bad.html"):
        await page.goto(f"{console.url}/runs/{run}/artifacts/{path}")
        assert await page.title() != "taken"
        assert await page.evaluate("self.origin") == "null"  # sandboxed: no cookie, no right of the console


async def test_a_preview_shows_json_in_lines(page: Page, console: Console) -> None:
    await page.goto(address(console, "/runs/{run}"))
    row = page.locator("tr", has_text="notes.json")
    await row.get_by_text("preview").click()

    await expect(row.locator("pre")).to_have_text('{\n  "a": 1\n}')


async def go(page: Page, key: str, title: str) -> None:
    """Presses g and a key until the page has come: a busy machine may be slower than the pause allowed between both."""
    deadline = time.monotonic() + WITHIN_S
    while await page.locator("h1").inner_text() != title:
        assert time.monotonic() < deadline
        await page.keyboard.press("g")
        await page.keyboard.press(key)
        with contextlib.suppress(AssertionError):
            await expect(page.locator("h1")).to_have_text(title, timeout=3000)


async def test_the_keyboard_goes_everywhere(page: Page, console: Console) -> None:
    await page.goto(console.url)
    for key, title in (
        ("r", "Runs"),
        ("t", "Traces"),
        ("m", "Models"),
        ("d", "Drift"),
        ("v", "Events"),
        ("l", "The loop"),
    ):
        await go(page, key, title)
    await page.keyboard.press("?")
    await expect(page.locator("#help")).to_be_visible()
    await page.keyboard.press("Escape")

    await page.goto(f"{console.url}/runs")
    await expect(page.locator("#runs tr[data-run]").first).to_be_visible()
    for key in ("j", "x", "j", "x"):
        await page.keyboard.press(key)
    await expect(page.locator("[data-compare]")).to_have_text("Compare 2")
    await page.locator("[data-compare]").click()
    await expect(page.locator("h1")).to_have_text("2 runs side by side")


async def test_the_chosen_appearance_is_kept(page: Page, console: Console) -> None:
    await page.emulate_media(color_scheme="light")
    await page.goto(console.url)
    light = await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    await page.locator("#theme").click()
    await page.locator("#theme").click()
    await page.goto(f"{console.url}/runs")

    assert await page.locator("html").get_attribute("data-theme") == "dark"
    assert await page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != light


async def test_a_page_that_is_not_there_says_so_kindly(page: Page, console: Console) -> None:
    for path in ("/nothing", "/runs/nobody", "/models/none", "/events/00000000-0000-7000-8000-000000000000"):
        response = await page.goto(console.url + path)
        assert response is not None
        assert response.status in (400, 404), path
        await expect(page.locator("h1")).to_be_visible()
        assert "Traceback" not in await page.content()


async def test_the_lineage_of_a_version_leads_to_what_it_came_of(page: Page, console: Console) -> None:
    number = console.version_by_a_service("traced")
    complaints = complaints_of(page)
    await page.goto(f"{console.url}/models/traced/versions/{number}")
    graph = page.locator("#lineage svg")
    await expect(graph.locator(".node-here")).to_contain_text(f"traced v{number}")
    await graph.scroll_into_view_if_needed()
    run = graph.locator("a.node").filter(has_text="run").first
    await expect(run).to_contain_text("run-")
    await run.click()
    await expect(page).to_have_url(re.compile(r"/runs/[0-9a-f-]{36}$"))
    assert complaints == []
    await page.goto(f"{console.url}/models/delays")
    await expect(page.locator("#lineage svg .node").first).to_be_visible()


async def test_a_renamed_model_is_shown_by_its_name_and_its_id(page: Page, console: Console) -> None:
    name = f"{PARENT}/models/renamed"
    with console.operator() as client:
        client.registry.CreateModel(CreateModelRequest(command_id=command_id(), name=name))
        client.registry.RenameModel(RenameModelRequest(command_id=command_id(), model=name, display_name="Late ones"))

    await page.goto(f"{console.url}/models")
    row = page.get_by_role("row").filter(has_text="Late ones")
    await expect(row).to_contain_text("renamed")
    await row.get_by_role("link").click()

    await expect(page.locator("h1")).to_have_text("Late ones")
    await expect(page.locator(".head").first).to_contain_text("id renamed")


async def test_a_version_says_who_signed_it_and_whether_that_counts(page: Page, console: Console) -> None:
    number, key = console.version_by_a_service("signed"), KeyPair.make()
    name = f"{PARENT}/models/signed"
    with console.operator() as client:
        trust = TrustKeyRequest(
            command_id=command_id(), model=name, public_key=key.public.decode(), reason="the release team's"
        )
        client.signing.TrustKey(trust)
        sign(client, f"{name}/versions/{number}", key.signer)
        await page.goto(f"{console.url}/models/signed/versions/{number}")
        line = page.locator(".signature")
        await expect(line).to_contain_text(key.verifier.id[:12])
        await expect(line).to_contain_text("the release team's")

        withdraw = WithdrawKeyRequest(
            command_id=command_id(), model=name, key_id=key.verifier.id, reason=f"it leaked {HOSTILE}"
        )
        client.signing.WithdrawKey(withdraw)
    await page.reload()
    await expect(line).to_contain_text("key withdrawn")
    await expect(line).to_contain_text("it leaked <script>")
    assert await page.title() != "taken"
