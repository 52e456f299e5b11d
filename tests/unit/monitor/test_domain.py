"""What verdicts lead to, and what rests."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from google.protobuf.message import Message

from headrace.api.monitor.v1 import events_pb2 as events
from headrace.api.monitor.v1 import resources_pb2 as resources
from headrace.api.monitor.v1 import service_pb2 as service
from headrace.api.monitor.v1.resources_pb2 import Finding, Monitor, MonitorConfig, Verdict
from headrace_kit.context import CommandContext
from headrace_kit.decided import cause_of, event_of
from headrace_kit.errors import FailedPrecondition, InvalidArgument
from headrace_monitor import domain, requests

NAME = "projects/default/monitors/delays"
VERSION = "projects/default/models/m/versions/3"
HOUR_US = 3_600_000_000


def context(command_id: UUID | None = None) -> CommandContext:
    return CommandContext(command_id or uuid4(), "services/monitor", datetime(2026, 1, 1, tzinfo=UTC))


def settings(**given: object) -> MonitorConfig:
    config = MonitorConfig(task=resources.TASK_KIND_REGRESSION, prediction_column="y", slot_s=3600, cooldown_s=36_000)
    for name, value in given.items():
        setattr(config, name, value)
    return requests.completed(config)


def monitor(**given: object) -> Monitor:
    request = service.CreateMonitorRequest(name=NAME, endpoint="delays")
    (created,) = domain.decide_create(None, request, settings(**given), context())
    return domain.evolve(None, created)


def verdict(hour: int, *channels: str, bad: str = "") -> Verdict:
    found = Verdict(
        model_version=VERSION,
        findings=[Finding(channel=each, statistic="multiscale", value=9, threshold=5) for each in channels],
        bad_version=bad,
        alias_revision=7,
    )
    found.slot.FromMicroseconds(hour * HOUR_US)
    found.data_until.FromMicroseconds((hour + 1) * HOUR_US)
    found.onset.FromMicroseconds((hour - 2) * HOUR_US)
    return found


def decided(state: Monitor, found: Verdict) -> tuple[Monitor, list[Message]]:
    answer = [event_of(each) for each in domain.decide_verdict(state, NAME, found, context())]
    for event in answer:
        state = domain.evolve(state, event)
    return state, answer


def kinds(answer: list[Message]) -> list[str]:
    return [type(each).__name__ for each in answer]


@pytest.mark.parametrize(
    ("channels", "kind"),
    [
        (("input:x", "prediction"), resources.ALERT_KIND_INPUT_DRIFT),
        (("prediction",), resources.ALERT_KIND_PREDICTION_DRIFT),
        (("input:x", "error"), resources.ALERT_KIND_CONCEPT_DRIFT),
        (("quality:x",), resources.ALERT_KIND_DATA_QUALITY),
    ],
)
def test_an_alert_is_of_the_kind_of_its_findings(channels: tuple[str, ...], kind: int) -> None:
    _, (raised,) = decided(monitor(), verdict(10, *channels))

    assert isinstance(raised, events.AlertRaised)
    assert raised.alert.kind == kind
    assert [each.channel for each in raised.alert.findings] == list(channels)


def test_drift_asks_for_training_once_until_it_has_rested() -> None:
    state = monitor(drift_action=resources.DRIFT_ACTION_RETRAIN)

    state, first = decided(state, verdict(10, "input:x"))
    state, second = decided(state, verdict(11, "input:x"))
    state, third = decided(state, verdict(21, "input:x"))

    assert kinds(first) == ["AlertRaised", "RetrainRequested"]
    assert second == []
    assert kinds(third) == ["AlertRaised", "RetrainRequested"]
    assert isinstance(first[0], events.AlertRaised)
    assert isinstance(first[1], events.RetrainRequested)
    assert first[1].alert == first[0].alert.name
    assert first[1].onset.ToMicroseconds() == 8 * HOUR_US


def test_broken_data_is_no_ground_for_training() -> None:
    _, answer = decided(monitor(drift_action=resources.DRIFT_ACTION_RETRAIN), verdict(10, "quality:x"))

    assert kinds(answer) == ["AlertRaised"]


def test_broken_data_and_drift_in_one_slot_are_two_alerts() -> None:
    _, answer = decided(monitor(), verdict(10, "quality:x", "input:y"))

    assert [each.alert.kind for each in answer if isinstance(each, events.AlertRaised)] == [
        resources.ALERT_KIND_DATA_QUALITY,
        resources.ALERT_KIND_INPUT_DRIFT,
    ]


def test_a_bad_version_is_rolled_back_once_with_the_revision_seen() -> None:
    state, answer = decided(monitor(roll_back_bad_versions=True), verdict(10, bad=VERSION))
    _, again = decided(state, verdict(11, bad=VERSION))

    assert kinds(answer) == ["AlertRaised", "RollbackRequested"]
    assert isinstance(answer[1], events.RollbackRequested)
    assert (answer[1].alias, answer[1].alias_revision, answer[1].model) == (
        "production",
        7,
        "projects/default/models/m",
    )
    assert again == []


@pytest.mark.parametrize(
    ("given", "found", "request_type"),
    [
        ({"drift_action": resources.DRIFT_ACTION_RETRAIN}, verdict(10, "quality:x", "error"), "RetrainRequested"),
        ({"roll_back_bad_versions": True}, verdict(10, "quality:x", bad=VERSION), "RollbackRequested"),
    ],
)
def test_a_request_is_caused_by_the_alert_it_cites(given: dict[str, object], found: Verdict, request_type: str) -> None:
    command = context()
    answer = domain.decide_verdict(monitor(**given), NAME, found, command)

    quality, alert, request = answer
    assert kinds([event_of(request)]) == [request_type]
    assert [cause_of(quality), cause_of(alert)] == [None, None]
    assert cause_of(request) == command.event_id(1)


def test_a_request_that_an_earlier_alert_led_to_is_caused_by_that_alert() -> None:
    state, (raised,) = decided(monitor(), verdict(10, "error"))
    assert isinstance(raised, events.AlertRaised)
    state.config.drift_action = resources.DRIFT_ACTION_RETRAIN

    (request,) = domain.decide_verdict(state, NAME, verdict(11, "error"), context())

    assert str(cause_of(request)) == raised.alert.event_id


def test_a_paused_monitor_decides_nothing() -> None:
    state = monitor()
    (paused,) = domain.decide_pause(state, service.PauseMonitorRequest(name=NAME, paused=True))

    _, answer = decided(domain.evolve(state, paused), verdict(10, "error"))

    assert answer == []


def test_a_decision_is_the_same_for_the_same_command() -> None:
    command = domain.verdict_command_id(NAME, config_revision=1, slot_us=5)

    one = domain.decide_verdict(monitor(), NAME, verdict(10, "error"), context(command))
    other = domain.decide_verdict(monitor(), NAME, verdict(10, "error"), context(command))

    assert list(one) == list(other)


def test_what_slots_are_made_of_never_changes() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        domain.decide_configure(monitor(), NAME, settings(slot_s=60))

    assert caught.value.field == "config.slot_s"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("slot_s", 604_801),
        ("false_alarm_budget", float("nan")),
        ("bad_version_factor", 1.0),
        ("error_detector", "psychic"),
        ("prediction_column", ""),
        ("task", 0),
        ("cooldown_s", -1),
    ],
)
def test_settings_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidArgument) as caught:
        settings(**{field: value})

    assert caught.value.field == f"config.{field}"


def test_an_evolved_state_leaves_the_one_before_it_alone() -> None:
    before = monitor()
    copy = Monitor.FromString(before.SerializeToString())

    decided(before, verdict(10, "error"))

    assert before == copy


def sealed(start: int, until: int) -> events.WindowsSealed:
    seal = events.WindowsSealed(monitor=NAME, count=2, sha256=bytes(32))
    getattr(seal, "from").FromMicroseconds(start * HOUR_US)
    seal.until.FromMicroseconds(until * HOUR_US)
    return seal


def test_seals_follow_each_other_without_a_gap() -> None:
    state = monitor()
    (first,) = domain.decide_seal(state, sealed(3, 9), context())
    state = domain.evolve(state, first)

    overlapping = domain.decide_seal(state, sealed(3, 12), context())
    after_a_gap = domain.decide_seal(state, sealed(10, 12), context())
    (following,) = domain.decide_seal(state, sealed(9, 12), context())

    assert (overlapping, after_a_gap) == ([], [])
    assert domain.evolve(state, following).sealed_until.ToMicroseconds() == 12 * HOUR_US
    assert state.sealed_time.ToDatetime(tzinfo=UTC) == context().now
