"""Gates of an alias, set by a form that says first which versions would pass them."""

from __future__ import annotations

import pytest
from playwright.async_api import BrowserContext, Page, expect

from headrace.api.registry.v1.resources_pb2 import MODEL_FORMAT_PICKLE, Gates
from headrace.api.registry.v1.service_pb2 import CheckPromotionRequest, GetModelRequest, SetGatesRequest
from tests.console.conftest import PARENT, Console, command_id
from tests.console.test_pages import complaints_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def gates_of(console: Console, model: str) -> list[Gates]:
    with console.operator() as client:
        return list(client.registry.GetModel(GetModelRequest(name=f"{PARENT}/models/{model}")).model.gates)


async def test_gates_are_tried_then_set_and_the_page_tells_by_whom(page: Page, console: Console) -> None:
    complaints = complaints_of(page)
    console.version_by_a_service("guarded")
    console.version_by_a_service("guarded")
    await page.goto(f"{console.url}/models/guarded")
    await page.get_by_role("link", name="set gates").click()
    form = page.locator("#gate-form")
    await expect(form.locator("[name=approval_required]")).to_be_checked()
    await form.locator("[name=required_checks]").fill("quality")
    await form.locator("[name=approval_required]").uncheck()
    await form.get_by_role("button", name="Which versions would pass?").click()
    await expect(page.locator("#tried [role=status]")).to_contain_text("2 of 2 versions would pass")

    await form.locator("[name=metrics]").fill("holdout/rmse<=24")
    await form.locator("[name=max_age_s]").fill("30d")
    await form.get_by_role("button", name="Which versions would pass?").click()
    await expect(page.locator("#tried [role=status]")).to_contain_text("0 of 2 versions would pass")
    await expect(page.locator("#tried tbody tr").first).to_contain_text("metric:rmse")
    assert gates_of(console, "guarded") == []

    await form.get_by_role("button", name="Set these gates").click()
    await expect(page.locator("#gates")).to_contain_text("holdout/rmse <= 24")
    await expect(page.locator("#gates")).to_contain_text("set by persons/operator")
    found = gates_of(console, "guarded")[0]
    assert (list(found.required_checks), found.max_age_s, found.approval_required) == (["quality"], 2592000, False)

    await page.locator("#gates").get_by_role("link", name="production").click()
    await expect(form.locator("[name=metrics]")).to_have_value("holdout/rmse<=24")
    await form.locator("[name=metrics]").fill("")
    await form.get_by_role("button", name="Set these gates").click()
    await expect(page.locator("#gates")).not_to_contain_text("rmse")
    await page.goto(f"{console.url}/models/guarded/gates")
    await expect(page.locator("#past li")).to_have_count(2)
    await expect(page.locator("#past li").last).to_contain_text("holdout/rmse <= 24")
    assert complaints == []


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("metrics", "rmse==3", "write it as"),
        ("max_age_s", "99999999d", "3153600000"),
        ("alias", "no such/alias", "letters, digits"),
        ("required_checks", "quality\nquality", "twice"),
        ("approvals", "0:reviewer", "1 to 100"),
    ],
)
async def test_what_is_refused_shows_its_field_and_keeps_the_rest(
    page: Page, console: Console, name: str, text: str, says: str
) -> None:
    await page.goto(f"{console.url}/models/delays/gates")
    await page.locator("[name=champion]").fill("rmse<0.5")
    await page.locator(f"[name={name}]").fill(text)
    await page.get_by_role("button", name="Set these gates").click()

    fault = page.locator(".field[data-fault]")
    await expect(fault).to_have_count(1)
    await expect(fault.locator(".fault")).to_contain_text(says)
    await expect(fault.locator(f"[name={name}]")).to_have_value(text)
    await expect(page.locator("[name=champion]")).to_have_value("rmse<0.5")
    assert gates_of(console, "delays") == []


async def test_a_person_consents_to_a_pickle_and_takes_it_back(page: Page, console: Console) -> None:
    complaints = complaints_of(page)
    number = console.version_by_a_service("pickled", MODEL_FORMAT_PICKLE)
    gates = Gates(alias="production", required_checks=["quality"], safe_format_required=True)
    with console.operator() as client:
        client.registry.SetGates(
            SetGatesRequest(command_id=command_id(), model=f"{PARENT}/models/pickled", gates=gates)
        )
    await page.goto(f"{console.url}/models/pickled/versions/{number}")
    production = page.locator('[data-alias="production"]')
    await expect(page.locator("#consent")).to_contain_text("nobody consented")
    await expect(production.locator(".unmet")).to_contain_text("format")

    consent = page.locator("form", has=page.get_by_role("button", name="Consent to its format"))
    await consent.locator("[name=reason]").fill("made by our own pipeline")
    await consent.get_by_role("button").click()
    await expect(page.locator("#consent")).to_contain_text("made by our own pipeline")
    await expect(production.locator(".unmet")).to_have_count(0)
    await production.locator("[name=reason]").fill("it passes")
    await production.get_by_role("button").click()
    await expect(production).to_contain_text("this version")

    withdrawal = page.locator("form", has=page.get_by_role("button", name="Take the consent back"))
    await withdrawal.locator("[name=reason]").fill("the pipeline was tampered with")
    await withdrawal.get_by_role("button").click()
    await expect(page.locator("#consent")).to_contain_text("nobody consented")
    with console.operator() as client:
        model = client.registry.GetModel(GetModelRequest(name=f"{PARENT}/models/pickled")).model
    assert model.versions[0].format_consent.given is False
    assert model.aliases[0].version == 1
    assert complaints == []


async def test_gates_are_not_set_without_the_forms_token(context: BrowserContext, console: Console) -> None:
    console.version_by_a_service("unforged")
    for fields in ({}, {"csrf": "0" * 64}):
        answer = await context.request.post(
            f"{console.url}/models/unforged/gates", form={"alias": "production", **fields}
        )
        assert answer.status == 403

    assert gates_of(console, "unforged") == []


def test_asking_by_other_gates_changes_nothing(console: Console) -> None:
    number = console.version_by_a_service("asked")
    query = CheckPromotionRequest(version=f"{PARENT}/models/asked/versions/{number}", alias="production")
    with console.operator() as client:
        assert [each.gate for each in client.registry.CheckPromotion(query).unmet] == ["approval"]
        query.gates.CopyFrom(Gates(required_checks=["quality"]))
        answer = client.registry.CheckPromotion(query)
        assert [(each.gate, each.passed) for each in answer.results] == [("check:quality", True), ("approval", True)]
        query.gates.required_checks.append("fairness")
        assert [each.gate for each in client.registry.CheckPromotion(query).unmet] == ["check:fairness"]
    assert gates_of(console, "asked") == []
