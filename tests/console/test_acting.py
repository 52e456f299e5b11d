"""What a person does in the console is done once, in that person's name."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext, Page, expect

from headrace.api.registry.v1.resources_pb2 import Gates, Model
from headrace.api.registry.v1.service_pb2 import GetModelRequest, PromoteVersionRequest, SetGatesRequest
from tests.console.conftest import HOSTILE, PARENT, Console, command_id

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def model_of(console: Console, name: str) -> Model:
    with console.operator() as client:
        return client.registry.GetModel(GetModelRequest(name=f"{PARENT}/models/{name}")).model


async def test_a_version_is_approved_promoted_and_rolled_back_by_forms(page: Page, console: Console) -> None:
    for number in (console.version_by_a_service("approved"), console.version_by_a_service("approved")):
        await page.goto(f"{console.url}/models/approved/versions/{number}")
        production = page.locator('[data-alias="production"]')
        await expect(production).to_contain_text("approval")
        await expect(production.get_by_role("button")).to_be_disabled()

        await page.locator("#review input[name=reason]").fill("I read its card")
        await page.get_by_role("button", name="Approve").click()
        await expect(page.locator("#promote")).to_contain_text("I read its card")

        await production.locator("input[name=reason]").fill("good enough")
        await production.get_by_role("button").click()
        await expect(production).to_contain_text("this version")

    await page.goto(f"{console.url}/models/approved")
    await page.get_by_text("Roll back").click()
    await page.get_by_role("button", name="What would it do?").click()
    await expect(page.locator("#effect")).to_contain_text("would lead from v2 to v1")
    assert model_of(console, "approved").aliases[0].version == 2

    await page.get_by_text("Roll back").click()
    await page.locator("#aliases input[name=reason]").fill("v2 errs more")
    await page.get_by_role("button", name="Roll production back").click()

    await expect(page.locator("#aliases .figure")).to_contain_text("v1")
    await expect(page.locator(".timeline li")).to_have_count(3)
    await expect(page.locator(".timeline li").first).to_contain_text("v2 errs more")
    moves = model_of(console, "approved").aliases[0].history
    assert [move.version for move in moves] == [1, 2, 1]
    assert [move.actor for move in moves] == ["persons/operator"] * 3
    assert moves[0].approvals[0].reason == "I read its card"


async def test_a_form_sent_twice_acts_once(page: Page, console: Console) -> None:
    number = console.version_by_a_service("twice")
    await page.goto(f"{console.url}/models/twice/versions/{number}")
    await page.locator("#review input[name=reason]").fill("seen")
    send = """async () => {
        const form = document.querySelector('#review');
        const once = () => fetch(form.action, {method: 'POST', body: new URLSearchParams(new FormData(form))});
        return (await Promise.all([once(), once()])).map((answer) => answer.status);
    }"""

    assert await page.evaluate(send) == [200, 200]
    assert len(model_of(console, "twice").versions[0].approvals) == 1


async def test_a_refusal_is_told_on_the_page_with_its_reasons(page: Page, console: Console) -> None:
    number = console.version_by_a_service("refused")
    await page.goto(f"{console.url}/models/refused/versions/{number}")
    await page.evaluate("document.querySelectorAll('[disabled]').forEach((each) => each.removeAttribute('disabled'))")
    production = page.locator('[data-alias="production"]')
    await production.locator("input[name=reason]").fill("impatience")
    await production.get_by_role("button").click()

    await expect(page.get_by_role("alert")).to_contain_text("approv")
    assert list(model_of(console, "refused").aliases) == []


async def test_a_form_without_its_token_changes_nothing(context: BrowserContext, console: Console) -> None:
    number = console.version_by_a_service("forged")
    fields = {"version": number, "reason": "forged", "command_id": "00000000-0000-4000-8000-000000000001"}
    path = f"{console.url}/models/forged/approve"

    for csrf in ({}, {"csrf": ""}, {"csrf": "0" * 64}):
        answer = await context.request.post(path, form={**fields, **csrf})
        assert answer.status == 403

    assert list(model_of(console, "forged").versions[0].approvals) == []


async def test_the_timeline_tells_whose_gates_let_a_version_pass(page: Page, console: Console) -> None:
    number = console.version_by_a_service("gated")
    name = f"{PARENT}/models/gated"
    with console.operator() as client:
        gates = Gates(alias="staging", required_checks=["quality"])
        client.registry.SetGates(SetGatesRequest(command_id=command_id(), model=name, gates=gates))
        client.registry.PromoteVersion(
            PromoteVersionRequest(
                command_id=command_id(), version=f"{name}/versions/{number}", alias="staging", expected_revision=-1
            )
        )

    await page.goto(f"{console.url}/models/gated")

    await expect(page.locator(".timeline li")).to_contain_text("gates of persons/operator that need no approval")
    await expect(page.get_by_text("set by persons/operator")).to_be_visible()
    await page.locator(".timeline").get_by_role("link", name="gates").click()
    await expect(page.locator("h1")).to_contain_text("GatesSet")


async def test_an_override_is_marked_on_version_and_timeline(page: Page, console: Console) -> None:
    number = console.version_by_a_service("forced")
    await page.goto(f"{console.url}/models/forced/versions/{number}")
    override = page.locator("#override")
    await override.get_by_text("Promote it although").click()
    await override.locator("input[name=reason]").fill("the flood is now")
    await override.get_by_role("button", name="Override its gates").click()

    await expect(page.locator(".notice.overridden")).to_contain_text("the flood is now")
    await expect(page.locator(".notice.overridden")).to_contain_text("approval")
    await page.goto(f"{console.url}/models/forced")
    await expect(page.locator(".timeline li")).to_contain_text("gates overridden")
    await expect(page.locator(".timeline li")).to_contain_text("the flood is now")
    assert model_of(console, "forced").versions[0].overrides[0].actor == "persons/operator"


async def test_a_card_is_written_and_shown_without_acting(page: Page, console: Console) -> None:
    number = console.version_by_a_service("carded")
    for path in ("/models/carded", f"/models/carded/versions/{number}"):
        await page.goto(console.url + path)
        card = page.locator("#card")
        await card.get_by_text("Write it").click()
        await card.locator("textarea[name=limits]").fill("winter storms")
        await card.locator("textarea[name=markdown]").fill(f"# Delays\n\n- *late* {HOSTILE}")
        await card.get_by_role("button", name="Write the card").click()

        await expect(card).to_contain_text("Revision 1")
        await expect(card.locator(".prose h1")).to_have_text("Delays")
        await expect(card.locator(".prose")).to_contain_text("<script>")
        await expect(card.locator(".facts")).to_contain_text("winter storms")
        assert await page.title() != "taken"
    model = model_of(console, "carded")
    assert (model.card.actor, model.versions[0].card.revision) == ("persons/operator", 1)
