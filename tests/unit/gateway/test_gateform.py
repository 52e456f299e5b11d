"""The form of gates: what it asks for, both ways, and what a refusal points at."""

from __future__ import annotations

import pytest

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace_gateway.gateform import KINDS, field_of, gates_of, texts_of
from headrace_kit.errors import InvalidArgument

GATES = resources.Gates(
    alias="production",
    required_checks=["quality", "drift"],
    metrics=[
        resources.MetricGate(metric="rmse", comparison=resources.COMPARISON_AT_MOST, threshold=24.5, check="holdout")
    ],
    champion=[resources.ChampionGate(metric="auc", higher_is_better=True)],
    approvals=[resources.ApprovalGate(count=1, role="reviewer"), resources.ApprovalGate(count=2)],
    max_age_s=30 * 86400,
    max_run_age_s=90,
    safe_format_required=True,
    compatible_signature_required=True,
    approval_required=True,
)


def test_what_is_set_fills_the_form_and_is_read_back() -> None:
    texts = texts_of(GATES)

    assert texts["required_checks"] == "quality\ndrift"
    assert gates_of(texts, "production") == GATES
    assert gates_of({}, "a") == resources.Gates(alias="a")


def test_a_form_as_browsers_send_it_is_read() -> None:
    form = {"required_checks": " quality \r\n\r\n drift\r\n", "approval_required": "on"}

    wanted = resources.Gates(alias="a", required_checks=["quality", "drift"], approval_required=True)
    assert gates_of(form, "a") == wanted


def test_every_gate_that_the_registry_knows_has_an_entry() -> None:
    set_by_the_server = {"alias", "actor", "time", "event_id"}

    assert {each.path for each in KINDS} == set(resources.Gates.DESCRIPTOR.fields_by_name) - set_by_the_server


@pytest.mark.parametrize(
    ("path", "text"), [("metrics", "rmse=3"), ("champion", "auc"), ("approvals", "two"), ("max_age_s", "soon")]
)
def test_what_can_not_be_read_names_its_field(path: str, text: str) -> None:
    with pytest.raises(InvalidArgument, match="write it as") as caught:
        gates_of({path: text}, "production")

    assert caught.value.field == path


def test_a_refusal_of_the_registry_leads_to_a_field_of_the_form() -> None:
    assert field_of("gates.metrics[3].threshold") == "metrics"
    assert field_of("gates.max_age_s") == "max_age_s"
    assert field_of("gates.alias") == field_of("command_id") == ""
