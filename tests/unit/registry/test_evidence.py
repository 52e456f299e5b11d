"""What gates say of metrics, the champion, age, format and persons, with the evidence they say it on."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

import pytest

from headrace.api.common.v1 import resources_pb2 as common
from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.errors import FailedPrecondition, PermissionDenied
from headrace_registry import domain, evidence
from tests.support.registering import MODEL, NOW, Registry, by, unmet

LOW = resources.MetricGate(metric="rmse", comparison=resources.COMPARISON_AT_MOST, threshold=25)
ANOTHER = "persons/grace"


@pytest.fixture
def registry() -> Registry:
    return Registry()


def results(registry: Registry, version: str) -> dict[str, resources.GateResult]:
    """The results in the event of a promotion, by gate."""
    [event] = registry.promote(version)
    assert isinstance(event, events.VersionPromoted)
    return {each.gate: each for each in event.promotion.results}


def test_a_metric_on_the_wrong_side_of_its_threshold_is_refused_with_both(registry: Registry) -> None:
    version = registry.register(metrics={"rmse": 25.5})
    registry.set_gates(actor=ANOTHER, metrics=[LOW])

    with pytest.raises(FailedPrecondition, match=r"rmse must be <= 25: it is 25\.5") as refusal:
        registry.promote(version)

    assert unmet(refusal.value) == {"metric:rmse"}


def test_a_metric_that_passes_is_in_the_event_with_where_it_was_recorded(registry: Registry) -> None:
    version = registry.register(metrics={"rmse": 25.0})
    registry.set_gates(actor=ANOTHER, metrics=[LOW])

    result = results(registry, version)["metric:rmse"]

    assert (result.passed, result.value, result.threshold, result.comparison) == (True, 25, 25, LOW.comparison)
    assert list(result.event_ids) == [registry.model.versions[0].event_id]


def test_a_metric_that_nobody_recorded_is_on_no_side(registry: Registry) -> None:
    version = registry.register(metrics={"mae": 1.0})
    registry.set_gates(
        actor=ANOTHER, metrics=[LOW, resources.MetricGate(metric="rmse", comparison=LOW.comparison, check="later")]
    )

    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(version)

    reasons = [each.description for each in refusal.value.violations]
    assert "registered without it" in reasons[0]
    assert "record a result of the check 'later'" in reasons[1]


def test_of_a_check_the_newest_result_is_held_to_the_threshold(registry: Registry) -> None:
    version = registry.register(metrics={"rmse": 99.0})
    gate = resources.MetricGate(metric="rmse", comparison=resources.COMPARISON_LESS, threshold=25, check="holdout")
    registry.set_gates(actor=ANOTHER, metrics=[gate])
    registry.validate(version, "holdout", passed=True, metrics={"rmse": 30.0}, digest="sha256:h")
    registry.validate(version, "holdout", passed=True, metrics={"rmse": 20.0}, digest="sha256:h")

    result = results(registry, version)["metric:rmse"]

    assert (result.value, result.dataset_digest) == (20.0, "sha256:h")
    assert list(result.actors) == ["services/orchestrator"]
    assert list(result.event_ids) == [registry.model.versions[0].validations[-1].event_id]


def champion_and_candidate(registry: Registry, champion: float, candidate: float) -> str:
    """A champion and a version measured on the same data; returns the version."""
    first = registry.promoted()
    registry.validate(first, "holdout", passed=True, metrics={"rmse": champion}, digest="sha256:h")
    second = registry.register()
    registry.validate(second, "holdout", passed=True, metrics={"rmse": candidate}, digest="sha256:h")
    return second


@pytest.mark.parametrize(
    ("candidate", "margin", "passes"),
    [(19.0, 1.0, True), (19.5, 1.0, False), (20.0, 0.0, False), (19.999, 0.0, True), (21.0, 0.0, False)],
)
def test_the_champion_must_be_beaten_by_the_margin(
    registry: Registry, candidate: float, margin: float, passes: bool
) -> None:
    version = champion_and_candidate(registry, 20.0, candidate)
    registry.set_gates(actor=ANOTHER, champion=[resources.ChampionGate(metric="rmse", margin=margin)])

    if not passes:
        with pytest.raises(FailedPrecondition) as refusal:
            registry.promote(version)
        assert unmet(refusal.value) == {"champion:rmse"}
        return
    result = results(registry, version)["champion:rmse"]
    assert (result.value, result.threshold, result.margin, result.champion) == (candidate, 20.0, margin, 1)
    assert (result.dataset_digest, len(result.event_ids)) == ("sha256:h", 2)


def test_more_is_better_where_the_gate_says_so_and_rounding_costs_nobody_the_margin() -> None:
    gate = resources.ChampionGate(metric="auc", higher_is_better=True, margin=0.1)

    assert evidence.of_champion(gate, measured(2, auc=0.3), measured(1, auc=0.2)).passed
    assert not evidence.of_champion(gate, measured(2, auc=0.2), measured(1, auc=0.3)).passed


def test_results_on_other_data_beat_nobody(registry: Registry) -> None:
    first = registry.promoted()
    registry.validate(first, "holdout", passed=True, metrics={"rmse": 20.0}, digest="sha256:old")
    second = registry.register()
    registry.validate(second, "holdout", passed=True, metrics={"rmse": 1.0}, digest="sha256:old")
    registry.validate(second, "holdout", passed=True, metrics={"rmse": 2.0}, digest="sha256:new")
    registry.set_gates(actor=ANOTHER, champion=[resources.ChampionGate(metric="rmse")])

    with pytest.raises(FailedPrecondition, match="the champion, version 1, with rmse on the same dataset, sha256:new"):
        registry.promote(second)

    registry.validate(first, "holdout", passed=True, metrics={"rmse": 3.0}, digest="sha256:new")
    assert results(registry, second)["champion:rmse"].threshold == 3.0


def test_without_a_champion_there_is_nobody_to_beat(registry: Registry) -> None:
    version = registry.register()
    registry.set_gates(actor=ANOTHER, champion=[resources.ChampionGate(metric="rmse")])

    assert results(registry, version)["champion:rmse"].reason == "there is no champion yet"


def test_an_alias_that_was_removed_still_has_its_champion(registry: Registry) -> None:
    version = champion_and_candidate(registry, 20.0, 30.0)
    registry.set_gates(actor=ANOTHER, champion=[resources.ChampionGate(metric="rmse")])
    registry.remove_alias("production", actor="persons/operator")

    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(version)

    assert unmet(refusal.value) == {"champion:rmse"}


def test_a_version_that_is_too_old_is_refused(registry: Registry) -> None:
    version = registry.register()
    registry.set_gates(actor=ANOTHER, max_age_s=86400)

    with pytest.raises(FailedPrecondition, match="2 days ago, 1 days ago at most") as refusal:
        registry.promote(version, at=NOW + timedelta(days=2))

    assert unmet(refusal.value) == {"freshness"}
    assert registry.promote(version, at=NOW + timedelta(days=1))


def test_the_age_of_a_run_must_be_known_and_is_never_less_than_the_versions(registry: Registry) -> None:
    registry.create(actor="services/orchestrator")
    registry.set_gates(actor=ANOTHER, max_run_age_s=3600)
    unknown = registry.register()
    old = registry.register(run_time=NOW - timedelta(hours=2))
    future = registry.register(run_time=NOW + timedelta(days=400))

    for version in (unknown, old):
        with pytest.raises(FailedPrecondition) as refusal:
            registry.promote(version)
        assert unmet(refusal.value) == {"run_freshness"}
    with pytest.raises(FailedPrecondition):
        registry.promote(future, at=NOW + timedelta(hours=2))
    assert registry.promote(future, at=NOW + timedelta(minutes=59))


@pytest.mark.parametrize("kind", [resources.MODEL_FORMAT_PICKLE, resources.MODEL_FORMAT_MLFLOW])
def test_a_format_that_may_run_code_needs_the_consent_of_another_person(
    registry: Registry, kind: resources.ModelFormat.ValueType
) -> None:
    version = registry.register(kind=kind, author="persons/ada")
    registry.set_gates(actor=ANOTHER, safe_format_required=True)
    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(version)
    assert unmet(refusal.value) == {"format"}

    for actor in ("persons/ada", "services/orchestrator"):
        with pytest.raises(PermissionDenied):
            registry.consent(version, given=True, actor=actor)
    [given] = registry.consent(version, given=True, actor="persons/operator")
    assert isinstance(given, events.FormatConsentRecorded)
    result = results(registry, version)["format"]
    assert (list(result.actors), list(result.event_ids)) == (["persons/operator"], [given.consent.event_id])


def test_a_consent_can_be_taken_back_by_anybody(registry: Registry) -> None:
    version = registry.register(kind=resources.MODEL_FORMAT_PICKLE, author="persons/ada")
    registry.set_gates(actor=ANOTHER, safe_format_required=True)
    registry.consent(version, given=True, actor="persons/operator")
    registry.consent(version, given=False, actor="persons/ada")

    with pytest.raises(FailedPrecondition):
        registry.promote(version)


@pytest.mark.parametrize("kind", [resources.MODEL_FORMAT_ONNX, resources.MODEL_FORMAT_SKOPS])
def test_a_format_that_runs_no_code_needs_no_consent(registry: Registry, kind: resources.ModelFormat.ValueType) -> None:
    version = registry.register(kind=kind)
    registry.set_gates(actor=ANOTHER, safe_format_required=True)

    assert results(registry, version)["format"].passed


def test_each_person_counts_once_and_a_rejection_takes_the_word_back(registry: Registry) -> None:
    version = registry.register(author="persons/ada")
    registry.set_gates(actor=ANOTHER, approvals=[resources.ApprovalGate(count=2)])
    registry.review(version, approve=True, actor="persons/b")
    registry.review(version, approve=True, actor="persons/b")
    with pytest.raises(FailedPrecondition, match="1 of 2 persons approved it: persons/b"):
        registry.promote(version)
    registry.review(version, approve=True, actor="persons/c")
    registry.review(version, approve=False, actor="persons/c")
    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(version)
    assert unmet(refusal.value) == {"approval", "approvals"}

    registry.review(version, approve=True, actor="persons/c")

    result = results(registry, version)["approvals"]
    reviews = registry.model.versions[0].approvals
    assert list(result.actors) == ["persons/b", "persons/c"]
    assert list(result.event_ids) == [reviews[1].event_id, reviews[-1].event_id]


def test_a_role_is_that_of_the_moment_of_approval(registry: Registry) -> None:
    version = registry.register(author="persons/ada")
    registry.set_gates(actor=ANOTHER, approvals=[resources.ApprovalGate(count=1, role="reviewer")])
    registry.review(version, approve=True, actor="persons/b")
    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(version)
    assert unmet(refusal.value) == {"approvals:reviewer"}

    registry.review(version, approve=True, actor="persons/b", roles=("reviewer", "operator"))

    assert list(registry.model.versions[0].approvals[-1].roles) == ["operator", "reviewer"]
    assert results(registry, version)["approvals:reviewer"].value == 1


def test_a_standing_approval_is_not_a_persons_word_on_this_version(registry: Registry) -> None:
    version = registry.register()
    registry.set_gates(actor=ANOTHER, approvals=[resources.ApprovalGate(count=1)])
    registry.grant(checks=())

    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(version, actor="services/serving")

    assert unmet(refusal.value) == {"approvals"}


def test_every_unmet_gate_of_every_kind_is_listed_at_once(registry: Registry) -> None:
    first = registry.promoted()
    version = registry.register(kind=resources.MODEL_FORMAT_PICKLE)
    registry.set_gates(
        actor=ANOTHER,
        checks=("quality",),
        metrics=[LOW],
        champion=[resources.ChampionGate(metric="rmse")],
        max_age_s=60,
        max_run_age_s=60,
        safe_format_required=True,
        approval_required=True,
        approvals=[resources.ApprovalGate(count=2, role="reviewer")],
    )

    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(version, at=NOW + timedelta(minutes=2))

    wanted = {"check:quality", "metric:rmse", "champion:rmse", "freshness", "run_freshness", "format", "approval"}
    assert unmet(refusal.value) == wanted | {"approvals:reviewer"}
    assert first == f"{MODEL}/versions/1"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_passes_no_gate_but_what_infinity_fulfils(value: float) -> None:
    held = [evidence.compare(value, each, 1.0) for each in evidence.SIGNS]

    assert held == [value < 1, value <= 1, value >= 1, value > 1]
    assert not evidence.compare(value, resources.COMPARISON_UNSPECIFIED, 1.0)


def measured(number: int, **metrics: float) -> resources.Version:
    check = resources.Validation(check="holdout", dataset=common.DatasetVersion(name="h", digest="sha256:h"))
    check.metrics.extend(common.NamedValue(name=name, value=value) for name, value in metrics.items())
    return resources.Version(number=number, validations=[check])


def replay(registry: Registry, version: str, *, champion: int = 1, at: datetime = NOW, **more: Any) -> None:
    """A replay of 1000 requests without errors, unless ``more`` says otherwise."""
    told: dict[str, Any] = {"requests": 1000, "rows": 1000, "max_difference": 0.25, "changed_share": 0.1, **more}
    found = resources.Replay(endpoint="projects/default/endpoints/delay", champion=champion, digest="d" * 64, **told)
    command = service.RecordValidationRequest(version=version, check="replay", passed=not found.errors, replay=found)
    registry.apply(lambda state: domain.decide_validation(state, command, by("services/serving", at)))


def replayed(registry: Registry, gate: resources.ReplayGate, *, champion: int = 1) -> resources.GateResult:
    return evidence.of_replay(gate, registry.model.versions[1], champion, NOW)


@pytest.fixture
def candidate() -> tuple[Registry, str]:
    registry = Registry()
    registry.promoted()
    return registry, registry.register()


def test_a_replay_passes_by_requests_errors_measure_and_age(candidate: tuple[Registry, str]) -> None:
    registry, version = candidate
    replay(registry, version, at=NOW - timedelta(days=2))
    near, far = resources.REPLAY_MEASURE_MAX_DIFFERENCE, resources.REPLAY_MEASURE_CHANGED_SHARE
    day = 86400

    for gate, told in [
        (resources.ReplayGate(requests=1000), ""),
        (resources.ReplayGate(requests=1001), "1001 are needed"),
        (resources.ReplayGate(requests=10, measure=near, most=0.25), ""),
        (resources.ReplayGate(requests=10, measure=near, most=0.2), "max_difference must be <= 0.2: it is 0.25"),
        (resources.ReplayGate(requests=10, measure=far, most=0.05), "changed_share must be"),
        (resources.ReplayGate(requests=10, max_age_s=3 * day), ""),
        (resources.ReplayGate(requests=10, max_age_s=day), "2 days ago"),
    ]:
        result = replayed(registry, gate)
        assert result.passed == (not told), result
        assert told in result.reason
        assert result.event_ids[0] == registry.model.versions[1].validations[-1].event_id
        assert (result.dataset_digest, result.champion) == ("d" * 64, 1)

    replay(registry, version, errors=1)
    assert "failed on 1 of 1000" in replayed(registry, resources.ReplayGate(requests=10)).reason


def test_the_newest_replay_against_the_champion_of_now_counts(candidate: tuple[Registry, str]) -> None:
    registry, version = candidate
    gate = resources.ReplayGate(requests=1000)
    assert "replay the last 1000 requests that version 1 answered" in replayed(registry, gate).reason

    replay(registry, version)
    replay(registry, version, requests=10)
    assert not replayed(registry, gate).passed  # it can not choose the kindest
    replay(registry, version)
    assert replayed(registry, gate).passed
    assert not replayed(registry, gate, champion=3).passed  # another is champion since
    assert replayed(registry, gate, champion=0).passed
    assert replayed(registry, gate, champion=2).passed


def test_a_promotion_needs_the_replay_where_gates_ask_for_it(candidate: tuple[Registry, str]) -> None:
    registry, version = candidate
    registry.set_gates(actor="persons/operator", replay=resources.ReplayGate(requests=1000))
    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(version)
    assert unmet(refusal.value) == {"replayed"}

    replay(registry, version)
    registry.promote(version)
    assert registry.model.aliases[0].version == 2
