"""What the report reads off a log: times from the events' own clock, links by causation ids alone."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from flights.data import Flights, microseconds
from flights.model import Model
from flights.report import Report, make_report
from flights.stream import Answers, Progress
from headrace.api.audit.v1.resources_pb2 import EventMeta, LogEntry
from headrace.api.monitor.v1.events_pb2 import AlertRaised, RetrainRequested, RollbackRequested
from headrace.api.monitor.v1.resources_pb2 import ALERT_KIND_INPUT_DRIFT, Alert, Finding
from headrace.api.monitor.v1.service_pb2 import GetCountsResponse
from headrace.api.registry.v1.events_pb2 import VersionPromoted, VersionRolledBack
from headrace.api.serving.v1.events_pb2 import RoutesChanged, VersionBlocked
from headrace.api.serving.v1.resources_pb2 import Route

START_S = 1_800_000_000.0
FINDING = Finding(channel="input:temp", statistic="multiscale", value=9, threshold=7, reference=1, observed=2)


class Log:
    """Events one after the other, each at a second of its own after ``START_S``."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []

    def add(self, event: Message, at_s: float, *, cause: str = "") -> str:
        area, name = event.DESCRIPTOR.full_name.removeprefix("headrace.api.").rsplit(".", 1)
        recorded = Timestamp()
        recorded.FromNanoseconds(round((START_S + at_s) * 1e9))
        self.entries.append(
            LogEntry(
                source="headrace/test",
                position=len(self.entries) + 1,
                event_id=str(uuid.uuid4()),
                type=f"headrace.{area}.{name}",
                recorded_at=recorded,
                hlc=len(self.entries) + 1,
                meta=EventMeta(causation_id=cause),
                data=event.SerializeToString(),
            )
        )
        return self.entries[-1].event_id

    def add_retrain(self, version: str, *, alert_s: float) -> tuple[str, str, str]:
        """An alert, 1 s later its request, 5 s later the promotion, 6 s later the route."""
        alert = self.add(AlertRaised(alert=Alert(kind=ALERT_KIND_INPUT_DRIFT, findings=[FINDING])), alert_s)
        request = self.add(RetrainRequested(), alert_s + 1, cause=alert)
        promoted = self.add(VersionPromoted(version=version), alert_s + 5, cause=request)
        self.add(RoutesChanged(routes=[Route(version=version)]), alert_s + 6, cause=promoted)
        return alert, request, promoted


def reported(log: Log, flights: Flights, champion: Model, **counts: Any) -> Report:
    """Half of the flights answered by v1 in the first ten seconds, half by v2 in the next ten."""
    count = len(flights)
    answers = Answers(
        predictions=np.zeros(count, dtype=np.float32),
        versions=(np.arange(count) >= count // 2).astype(np.int16),
        names=["v1", "v2"],
        times=START_S + np.linspace(0, 20, count, endpoint=False),
    )
    progress = Progress(predictions=count, labels=5)
    found = GetCountsResponse(**{"predictions": count, "labels_joined": 5, **counts})
    return make_report(
        log.entries,
        replayed=flights,
        answers=answers,
        progress=progress,
        counts=found,
        settled=True,
        first_model=champion.onnx,
        seconds=20,
        console="",
    )


@pytest.fixture(scope="module")
def some(recent: Flights) -> Flights:
    return recent.between(int(recent.event_us[0]), int(recent.event_us[1000]))


def test_a_retrain_takes_from_its_alert_to_its_promotion_and_its_route(some: Flights, champion: Model) -> None:
    log = Log()
    alert, request, promoted = log.add_retrain("v2", alert_s=4)

    (retrain,) = reported(log, some, champion).retrains

    assert (retrain.alert_event, retrain.requested_event, retrain.promoted_event) == (alert, request, promoted)
    assert retrain.alert_to_promotion_s == pytest.approx(5)
    assert retrain.alert_to_serving_s == pytest.approx(6)
    assert retrain.flights_between == pytest.approx(len(some) / 20 * 5, abs=1)
    assert retrain.version == "v2"
    assert retrain.kind == "INPUT_DRIFT"
    assert [(each.value, each.threshold) for each in retrain.evidence] == [(9, 7)]


def test_a_promotion_of_somebody_else_is_not_the_retrains(some: Flights, champion: Model) -> None:
    log = Log()
    alert = log.add(AlertRaised(alert=Alert(kind=ALERT_KIND_INPUT_DRIFT)), 1)
    log.add(RetrainRequested(), 2, cause=alert)
    log.add(VersionPromoted(version="v2"), 3)

    (retrain,) = reported(log, some, champion).retrains

    assert retrain.promoted_event == retrain.version == ""
    assert retrain.alert_to_promotion_s is retrain.alert_to_serving_s is retrain.flights_between is None


def test_a_rollback_takes_from_its_request_to_the_old_answers_and_to_the_alias(some: Flights, champion: Model) -> None:
    log = Log()
    log.add(VersionPromoted(version="v2"), 10)
    alert = log.add(AlertRaised(alert=Alert(findings=[FINDING])), 12.5)
    request = log.add(RollbackRequested(bad_version="v2"), 13, cause=alert)
    blocked = log.add(VersionBlocked(version="v2"), 13.03, cause=request)
    moved = log.add(VersionRolledBack(bad_version="v2", version="v1"), 13.05, cause=blocked)

    report = reported(log, some, champion)
    (rollback,) = report.rollbacks

    assert (rollback.alert_event, rollback.requested_event) == (alert, request)
    assert (rollback.blocked_event, rollback.rolled_back_event) == (blocked, moved)
    assert rollback.promoted_to_alert_s == pytest.approx(2.5)
    assert rollback.request_to_serving_s == pytest.approx(0.03)
    assert rollback.request_to_alias_s == pytest.approx(0.05)
    assert rollback.flights_answered == len(some) - len(some) // 2
    assert report.errors.flights > 0
    assert not report.closed


def test_the_loop_is_closed_by_both_and_by_every_count(some: Flights, champion: Model) -> None:
    log = Log()
    log.add_retrain("v2", alert_s=1)
    alert = log.add(AlertRaised(), 12)
    request = log.add(RollbackRequested(bad_version="v2"), 13, cause=alert)
    log.add(VersionRolledBack(bad_version="v2", version="v1"), 14, cause=request)

    report = reported(log, some, champion)

    assert report.closed
    assert not replace(report, retrains=()).closed
    assert not replace(report, rollbacks=()).closed
    assert not replace(report, predictions_counted=report.predictions_sent - 1).closed
    assert not replace(report, predictions_counted=report.predictions_sent + 1).closed
    assert replace(report, predictions_counted=report.predictions_sent + 1, predictions_of_unknown_outcome=1).closed


def test_a_request_without_a_known_alert_closes_nothing(some: Flights, champion: Model) -> None:
    log = Log()
    request = log.add(RetrainRequested(), 1, cause=str(uuid.uuid4()))
    log.add(VersionPromoted(version="v2"), 3, cause=request)

    (retrain,) = reported(log, some, champion).retrains

    assert retrain.alert_event == ""
    assert retrain.alert_to_promotion_s == pytest.approx(2)


def test_july_to_october_has_errors_of_its_own_or_none(some: Flights, year: Flights, champion: Model) -> None:
    assert reported(Log(), some, champion).errors_july_to_october is None

    both = year.between(microseconds(2013, 6, 28), microseconds(2013, 7, 3))
    errors = reported(Log(), both, champion).errors_july_to_october

    assert errors is not None
    assert errors.flights == len(both.between(microseconds(2013, 7), microseconds(2013, 11)).labelled())
