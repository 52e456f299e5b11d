"""The closed loop, end to end: drift is found, a retrained version takes over, a bad one is rolled back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from flights.report import Report
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.registry.v1.events_pb2 import VersionCreated
from headrace.story import chain
from tests.support.eventually import eventually
from tests.support.history import faults
from tests.support.loop import Loop, history_at_rest, require_drift_before_the_hasty_release
from tests.support.platform import Platform

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
PROJECT = "projects/default/"
"""The demo's own; no other test writes there."""


def test_the_loop_closes_and_everything_is_counted(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_DATA", str(platform.folder))
    loop = Loop(platform.connection)
    try:
        eventually(lambda: loop.ended(within_s=1), within_s=540)
    finally:
        loop.stop()
    report = loop.report()
    with platform.client() as client:
        history = history_at_rest(client, runs_below=PROJECT)

    assert faults(history, runs_below=PROJECT) == []
    assert report.predictions_of_unknown_outcome == report.batches_lost == 0
    assert report.predictions_counted == report.predictions_sent == report.flights
    assert report.labels_joined == report.labels_sent
    assert report.closed
    assert report.alerts == sum(report.alerts_by_kind.values()) >= 2
    require_drift_before_the_hasty_release(history, report)
    _assert_told_as_one_story(history, report)
    _assert_found_by_evidence(report)
    assert report.rollbacks[0].version != report.rollbacks[0].bad_version


def _assert_told_as_one_story(history: Sequence[LogEntry], report: Report) -> None:
    """By causation ids alone."""
    retrain = next(each for each in report.retrains if each.promoted_event)
    rollback = next(each for each in report.rollbacks if each.rolled_back_event)
    promoted = _causes(history, retrain.promoted_event)
    rolled_back = _causes(history, rollback.rolled_back_event)

    wanted = ["AlertRaised", "RetrainRequested", "PipelineRunStarted", "RolloutStarted", "VersionPromoted"]
    assert [each for each in map(_name, promoted) if each in wanted] == wanted
    assert [promoted[0].event_id, promoted[1].event_id] == [retrain.alert_event, retrain.requested_event]
    assert [_name(each) for each in promoted[:2]] == ["AlertRaised", "RetrainRequested"]
    assert _name(promoted[-1]) == "VersionPromoted"
    assert [_name(each) for each in rolled_back[:2]] == ["AlertRaised", "RollbackRequested"]
    assert [each.event_id for each in rolled_back[:2]] == [rollback.alert_event, rollback.requested_event]
    assert _name(rolled_back[-1]) == "VersionRolledBack"
    (created,) = [
        each
        for each in history
        if _name(each) == "VersionCreated"
        and each.stream_id in retrain.version
        and VersionCreated.FromString(each.data).version.name == retrain.version
    ]
    assert [each.event_id for each in _causes(history, created.event_id)][:3] == [
        each.event_id for each in promoted[:3]
    ]
    depths = {link.entry.event_id: link.depth for link in chain(history, retrain.promoted_event)}
    assert [depths[each.event_id] for each in promoted] == list(range(len(promoted)))


def _assert_found_by_evidence(report: Report) -> None:
    for evidence in [each.evidence for each in report.retrains] + [each.evidence for each in report.rollbacks]:
        assert evidence
        assert all(each.value > each.threshold for each in evidence)


def _causes(history: Sequence[LogEntry], event_id: str) -> list[LogEntry]:
    """The event and the causes of it, first cause first."""
    by_id = {entry.event_id: entry for entry in history}
    found: list[LogEntry] = []
    while event_id:
        found.insert(0, by_id[event_id])
        event_id = found[0].meta.causation_id
    return found


def _name(entry: LogEntry) -> str:
    return entry.type.rpartition(".")[2]
