"""The demo's closed loop on a platform, played so that it closes on a machine of any speed.

    loop = Loop(platform.connection)
    while not loop.ended(within_s=0.2):
        ...  # look at loop.played and loop.seen(...), and do your worst
    report = loop.report()

The stream never stops, but it slows down while a retrained version is on its way, and while the monitor is behind:
what a quick machine does within a week of flights, a busy one should not need the rest of the year for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from threading import Thread
from typing import Final

import grpc

from flights import data, demo, lifecycle
from flights.report import Report
from headrace import story
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.monitor.v1.service_pb2 import GetCountsRequest
from headrace.api.orchestrator.v1 import events_pb2 as orchestrator
from headrace.api.registry.v1 import events_pb2 as registry
from headrace.api.serving.v1 import events_pb2 as serving
from headrace.client import Client
from headrace.connection import Connection
from tests.support.history import runs_not_ended

FROM_US: Final = data.microseconds(2013, 6)
HASTY_FROM_US: Final = data.microseconds(2013, 8, 5)
UNTIL_US: Final = data.microseconds(2013, 9)
"""Three months of summer: other destinations than in the two months of winter that the first model knows."""
PACE: Final = 2000.0
"""Flights a second while nothing is on its way."""
PACE_WAITING: Final = 40.0
PACE_ROLLING_OUT: Final = 800.0
PACE_HASTY: Final = 400.0
"""While a careless release is on its way and not yet taken back: the month left is over in ten seconds otherwise."""
BEHIND: Final = 4000
"""Rows that the monitor may be behind: four days of flights."""
DRIFT_KINDS: Final = ("CONCEPT_DRIFT", "INPUT_DRIFT", "PREDICTION_DRIFT")
_RUN_ENDS: Final = (
    orchestrator.PipelineRunSucceeded,
    orchestrator.PipelineRunFailed,
    orchestrator.PipelineRunCancelled,
)


def history_at_rest(client: Client, *, runs_below: str = "") -> list[LogEntry]:
    """The whole log of all services once every pipeline run has ended, or after four minutes."""
    deadline = time.monotonic() + 240
    while True:
        history = story.read_logs(client)
        if not list(runs_not_ended(history, below=runs_below)) or time.monotonic() > deadline:
            return history
        time.sleep(0.5)


def require_drift_before_the_hasty_release(history: Sequence[LogEntry], report: Report) -> None:
    """The retrained version came from drift found in the data, and not from the version made bad on purpose."""
    order = {entry.event_id: place for place, entry in enumerate(sorted(history, key=story.order_of))}
    hasty = min(
        order[entry.event_id]
        for entry in history
        if entry.type.endswith(f".{registry.VersionPromoted.__name__}")
        and registry.VersionPromoted.FromString(entry.data).version == report.rollbacks[0].bad_version
    )
    retrain = next(each for each in report.retrains if each.promoted_event)
    assert retrain.kind in DRIFT_KINDS
    assert order[retrain.alert_event] < hasty


class Loop:
    """A play of the demo under way in threads of its own. ``HEADRACE_DATA`` must name the platform's folder."""

    def __init__(self, connection: Connection) -> None:
        self._stage = demo.Stage()
        self._outcome: Future[Report] = Future()
        self._last_counted = 0
        for work in (self._play, self._keep_pace):
            Thread(target=work, args=(connection,), name=f"loop {work.__name__}", daemon=True).start()

    @property
    def played(self) -> float:
        """Share of the stream that was answered, 0 to 1."""
        application = self._stage.application
        return application.progress.predictions / self._stage.rows if application else 0.0

    @property
    def answered(self) -> dict[str, int]:
        """Rows by the id of the prediction, of all that were answered."""
        return dict(self._stage.application.answered) if self._stage.application else {}

    @property
    def entries(self) -> list[LogEntry]:
        """The platform's log, at most half a second old while its services can be asked."""
        return sorted(self._stage.entries.copy().values(), key=story.order_of)

    def seen(self, type: type[object]) -> int:
        """How many events of a type the log has."""
        return sum(entry.type.rpartition(".")[2] == type.__name__ for entry in self.entries)

    @property
    def retrained(self) -> bool:
        """Whether a version came to production by itself."""
        return any(
            entry.meta.actor == "services/serving"
            for entry in self.entries
            if entry.type.endswith(f".{registry.VersionPromoted.__name__}")
        )

    def ended(self, *, within_s: float) -> bool:
        """Whether the play has ended, after waiting for it for a while."""
        return bool(wait([self._outcome], timeout=within_s).done)

    def report(self) -> Report:
        """The report of a play that has ended; raises what ended it early."""
        return self._outcome.result(timeout=0)

    def stop(self) -> None:
        """End the play early."""
        self._stage.stopped.set()

    def _play(self, connection: Connection) -> None:
        try:
            report = demo.play(
                connection,
                pace=PACE,
                from_us=FROM_US,
                until_us=UNTIL_US,
                hasty_from_us=HASTY_FROM_US,
                stage=self._stage,
            )
        except BaseException as error:  # noqa: BLE001 - whoever waits for the outcome must hear of it
            self._outcome.set_exception(error)
        else:
            self._outcome.set_result(report)

    def _keep_pace(self, connection: Connection) -> None:
        with Client(connection) as client:
            while not self.ended(within_s=0.1):
                application = self._stage.application
                if application is not None:
                    behind = application.progress.predictions - self._counted(client) > BEHIND
                    hasty = application.progress.event_us >= HASTY_FROM_US and not self.seen(registry.VersionRolledBack)
                    application.pace = PACE_WAITING if behind else PACE_HASTY if hasty else self._pace()

    def _counted(self, client: Client) -> int:
        with suppress(grpc.RpcError):  # nobody has asked yet, or the monitor is away: what was known stands
            self._last_counted = client.monitor.GetCounts(GetCountsRequest(endpoint=lifecycle.ENDPOINT)).predictions
        return self._last_counted

    def _pace(self) -> float:
        if self.retrained:
            return PACE
        if self.seen(serving.RolloutStarted) > self.seen(serving.RolloutCompleted) + self.seen(serving.RolloutAborted):
            return PACE_ROLLING_OUT
        if self.seen(orchestrator.PipelineRunStarted) > sum(self.seen(end) for end in _RUN_ENDS):
            return PACE_WAITING
        return PACE
