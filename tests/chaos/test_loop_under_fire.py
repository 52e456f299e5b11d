"""The closed loop under fire: while the demo's stream runs, every part of the platform dies once, by kill -9."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from flights import lifecycle
from headrace.api.monitor.v1.events_pb2 import RetrainRequested
from headrace.api.serving.v1.events_pb2 import RolloutStarted
from headrace_local.stack import Stack
from headrace_local.testing import temporary_folder
from tests.support import predictions
from tests.support.eventually import eventually
from tests.support.history import faults
from tests.support.loop import Loop, history_at_rest, require_drift_before_the_hasty_release
from tests.support.platform import Platform

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


@dataclass(frozen=True, slots=True)
class Kill:
    """A part, and when it dies.

    Attributes:
        part: Name of the part.
        played: At the latest when this share of the stream was answered.
        after: Earlier, once the log has an event of this type.
    """

    part: str
    played: float
    after: type[object] | None = None

    def due(self, loop: Loop) -> bool:
        return loop.played >= self.played or (self.after is not None and loop.seen(self.after) > 0)


KILLS = (
    Kill("gateway", 0.03),
    Kill("monitor", 0.08),
    Kill("tracking", 0.5, after=RetrainRequested),  # while a model is trained, and logs how
    Kill("orchestrator", 0.55, after=RetrainRequested),
    Kill("serving", 0.6, after=RolloutStarted),  # with a candidate in its canary
    Kill("registry", 0.65, after=RolloutStarted),
    Kill("postgres", 0.7),  # a careless release is on its way
    Kill("kafka", 0.8),
)


@pytest.fixture
def own_platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A whole platform for one test."""
    with temporary_folder() as folder:
        running = Platform(Stack(folder / "data"))
        monkeypatch.setenv("HEADRACE_DATA", str(running.folder))
        running.start()
        try:
            yield running
        finally:
            running.stop()


def fire(platform: Platform, loop: Loop) -> list[str]:
    """Kill one part after the other while the stream runs; return the names of those that died."""
    killed: list[str] = []
    for kill in KILLS:
        while not kill.due(loop):
            if loop.ended(within_s=0.1):
                loop.report()  # raises what ended it
                return killed
        assert loop.played < 1, f"the stream ended before {kill.part} was killed"
        former = platform.kill(kill.part)
        platform.wait_ready(kill.part, other_than=former, within_s=120)
        killed.append(kill.part)
    return killed


def test_nothing_is_lost_or_done_twice_and_the_loop_closes(own_platform: Platform) -> None:
    loop = Loop(own_platform.connection)
    try:
        killed = fire(own_platform, loop)
        eventually(lambda: loop.ended(within_s=1), within_s=600)
    finally:
        loop.stop()
    report = loop.report()
    with own_platform.client() as client:
        history = history_at_rest(client)

    assert killed == [kill.part for kill in KILLS]
    assert faults(history) == []
    found = predictions.find(own_platform.addresses, project="default", endpoint=lifecycle.ENDPOINT.rpartition("/")[2])
    answered = predictions.by_key(loop.answered)
    assert sum(answered.values()) == report.predictions_sent
    assert found.published_twice == 0
    assert found.counted == found.published  # all that Kafka has, and nothing else
    assert {key: found.counted.get(key) for key in answered} == answered
    assert report.predictions_counted == sum(found.counted.values())
    # What serving had on its way when it died was not acknowledged: it is counted, or known to be lost, and never both.
    unanswered = sum(rows for key, rows in found.counted.items() if key not in answered)
    assert unanswered + report.batches_lost <= report.predictions_of_unknown_outcome
    assert report.labels_joined == report.labels_sent
    assert [each.version for each in report.retrains if each.promoted_event]
    assert [each.version for each in report.rollbacks if each.blocked_event and each.rolled_back_event], report
    assert report.closed
    require_drift_before_the_hasty_release(history, report)
