"""The closed loop, end to end: drift is found, a retrained version takes over, a bad one is rolled back."""

from __future__ import annotations

import pytest

from headrace.api.registry.v1.events_pb2 import VersionPromoted
from headrace.story import chain
from tests.support.eventually import eventually
from tests.support.history import faults
from tests.support.loop import Loop, history_at_rest
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
    promoted = next(each.promoted_event for each in report.retrains if each.promoted_event)
    story = [link.entry.type.rpartition(".")[2] for link in chain(history, promoted)]
    assert story[0] in ("AlertRaised", "RetrainRequested")
    wanted = ["RetrainRequested", "PipelineRunStarted", "VersionCreated", "RolloutStarted", VersionPromoted.__name__]
    assert [each for each in dict.fromkeys(story) if each in wanted] == wanted
    assert report.rollbacks[0].version != report.rollbacks[0].bad_version
