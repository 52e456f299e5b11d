"""What the loop came to: drift, alert, retrain, new version, rollback, with the events that prove it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, TypeVar

import numpy as np
from google.protobuf.message import Message

from flights.data import Flights, microseconds
from flights.errors import Errors, compare
from flights.model import Predictor
from flights.stream import Answers, Progress
from headrace import story
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.monitor.v1 import events_pb2 as monitor
from headrace.api.monitor.v1.resources_pb2 import Alert, AlertKind
from headrace.api.monitor.v1.service_pb2 import GetCountsResponse
from headrace.api.registry.v1 import events_pb2 as registry
from headrace.api.serving.v1 import events_pb2 as serving

M = TypeVar("M", bound=Message)
_NO_ALERT: Final = (LogEntry(), Alert())


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a detector saw, as the alert tells it.

    Attributes:
        channel: What was watched: ``error``, ``prediction``, ``input:temp``.
        statistic: Name of the test.
        value: Of the statistic.
        threshold: Above which ``value`` is a finding.
        observed: What was seen.
        reference: What the training data led to expect.
    """

    channel: str
    statistic: str
    value: float
    threshold: float
    observed: float
    reference: float


@dataclass(frozen=True, slots=True)
class Retrain:
    """One closed loop: drift to a new version that serves.

    Attributes:
        alert: What was found.
        kind: Kind of the alert: ``CONCEPT_DRIFT``, ``INPUT_DRIFT``, ``PREDICTION_DRIFT``.
        onset: Event time since which it has been so, as estimated, ISO 8601.
        evidence: What the detectors saw.
        alert_event: Id of AlertRaised: what RetrainRequested names as its cause; empty when that is in no log.
        requested_event: Id of RetrainRequested.
        promoted_event: Id of VersionPromoted; empty when the candidate did not take over.
        version: The version promoted; empty likewise.
        alert_to_promotion_s: Seconds between the two; None likewise.
        alert_to_serving_s: Seconds from the alert to RoutesChanged of serving; None likewise.
        flights_between: Flights answered between alert and promotion; None likewise.
        event_time: Event time of the slot that decided, ISO 8601.
    """

    alert: str
    kind: str
    onset: str
    evidence: tuple[Evidence, ...]
    alert_event: str
    requested_event: str
    promoted_event: str
    version: str
    alert_to_promotion_s: float | None
    alert_to_serving_s: float | None
    flights_between: int | None
    event_time: str


@dataclass(frozen=True, slots=True)
class Rollback:
    """A bad version found and taken back.

    Attributes:
        bad_version: The version that was bad.
        version: The version that serves since.
        evidence: What its errors were, and what is usual.
        alert_event: Id of AlertRaised: what RollbackRequested names as its cause; empty when that is in no log.
        requested_event: Id of RollbackRequested.
        blocked_event: Id of VersionBlocked.
        rolled_back_event: Id of VersionRolledBack.
        promoted_to_alert_s: Seconds from the promotion of the bad version to the alert.
        request_to_serving_s: Seconds from RollbackRequested to VersionBlocked: the old version answers again.
        request_to_alias_s: Seconds from RollbackRequested to VersionRolledBack.
        flights_answered: Flights the bad version answered.
    """

    bad_version: str
    version: str
    evidence: tuple[Evidence, ...]
    alert_event: str
    requested_event: str
    blocked_event: str
    rolled_back_event: str
    promoted_to_alert_s: float | None
    request_to_serving_s: float | None
    request_to_alias_s: float | None
    flights_answered: int


@dataclass(frozen=True, slots=True)
class Report:
    """The demo's result.

    ``closed`` says that the loop did its work, ``errors`` whether the work was worth it. They are two statements:
    a platform answers for the first, and the data has its say in the second.

    Attributes:
        flights: Flights replayed.
        seconds: The replay took so long.
        predictions_sent: Rows that were answered.
        predictions_counted: Rows that the monitor counted.
        predictions_of_unknown_outcome: Rows of attempts that a service's death left without an answer.
        labels_sent: Labels acknowledged.
        labels_joined: Labels that met their prediction.
        batches_lost: Batches of telemetry known to be missing.
        settled: Whether everything sent was counted and every pipeline run had ended when this was written.
        errors: With the loop and with the first model frozen, all flights.
        errors_july_to_october: As ``errors``, of the months that the first model knows least; None when none was
            replayed.
        retrains: What drift led to.
        rollbacks: What bad versions led to.
        alerts: Alerts raised.
        alerts_by_kind: The same by kind.
        console: The console's address.
    """

    flights: int
    seconds: float
    predictions_sent: int
    predictions_counted: int
    predictions_of_unknown_outcome: int
    labels_sent: int
    labels_joined: int
    batches_lost: int
    settled: bool
    errors: Errors
    errors_july_to_october: Errors | None
    retrains: tuple[Retrain, ...]
    rollbacks: tuple[Rollback, ...]
    alerts: int
    alerts_by_kind: dict[str, int]
    console: str

    @property
    def closed(self) -> bool:
        """Whether the loop did, unattended, all that it is for.

        An alert on drift caused a request, which led to a version that was promoted and served; an alert on a bad
        version caused a request, which led to its rollback; and everything sent was counted. Caused means by the
        events' causation ids, not by names or order. Nothing is said of error here: see ``Errors.beats_frozen``.
        """
        retrained = any(each.alert_event and each.alert_to_serving_s is not None for each in self.retrains)
        rolled_back = any(each.alert_event and each.rolled_back_event for each in self.rollbacks)
        return retrained and rolled_back and self.all_counted

    @property
    def all_counted(self) -> bool:
        """Whether the monitor counted what was acknowledged, once.

        What was on its way when a service died was not acknowledged: it may be counted, or known to be lost.
        """
        surplus = self.predictions_counted - self.predictions_sent
        unknown = self.predictions_of_unknown_outcome
        return 0 <= surplus <= unknown and self.batches_lost <= unknown

    def as_dict(self) -> dict[str, object]:
        """The report as plain values, ready for JSON."""
        return {**asdict(self), "closed": self.closed}


def make_report(
    entries: Sequence[LogEntry],
    *,
    replayed: Flights,
    answers: Answers,
    progress: Progress,
    counts: GetCountsResponse,
    settled: bool,
    first_model: bytes,
    seconds: float,
    console: str,
) -> Report:
    """Read the report off the platform's log and the application's own record."""
    log = _Log(entries)
    frozen = Predictor(first_model).predict(replayed.features)
    summer = replayed.between(microseconds(2013, 7), microseconds(2013, 11))
    first = int(np.searchsorted(replayed.event_us, microseconds(2013, 7)))
    july_to_october = slice(first, first + len(summer))
    rollbacks = tuple(_rollbacks(log, answers))
    bad = np.isin(answers.versions, [place for place, name in enumerate(answers.names) if _is_bad(name, rollbacks)])

    def errors_of(some: slice) -> Errors:
        return compare(
            answers.predictions[some],
            frozen[some],
            labels=replayed.labels[some],
            event_us=replayed.event_us[some],
            bad=bad[some],
        )

    raised = [message.alert for _, message in log.of(monitor.AlertRaised)]
    return Report(
        flights=len(replayed),
        seconds=seconds,
        predictions_sent=progress.predictions,
        predictions_counted=counts.predictions,
        predictions_of_unknown_outcome=progress.repeated,
        labels_sent=progress.labels,
        labels_joined=counts.labels_joined,
        batches_lost=counts.batches_lost,
        settled=settled,
        errors=errors_of(slice(None)),
        errors_july_to_october=errors_of(july_to_october) if len(summer) else None,
        retrains=tuple(_retrains(log, answers)),
        rollbacks=rollbacks,
        alerts=len(raised),
        alerts_by_kind=dict(Counter(map(_kind_of, raised))),
        console=console,
    )


def _is_bad(name: str, rollbacks: Sequence[Rollback]) -> bool:
    return any(each.bad_version == name for each in rollbacks)


class _Log:
    """Events by type, and what each led to."""

    def __init__(self, entries: Sequence[LogEntry]) -> None:
        self._decoded = [(entry, story.decode(entry)) for entry in entries]
        self._entries = list(entries)

    def of(self, kind: type[M]) -> list[tuple[LogEntry, M]]:
        return [(entry, message) for entry, message in self._decoded if isinstance(message, kind)]

    def alerts(self) -> dict[str, tuple[LogEntry, Alert]]:
        """Alerts by the id of their event."""
        return {entry.event_id: (entry, message.alert) for entry, message in self.of(monitor.AlertRaised)}

    def effects(self, event_id: str, kind: type[M]) -> list[tuple[LogEntry, M]]:
        """Events of a kind that an event led to, directly or not."""
        below = _below(self._entries, event_id)
        return [(entry, message) for entry, message in self.of(kind) if entry.event_id in below]


def _below(entries: Sequence[LogEntry], event_id: str) -> set[str]:
    found = {event_id}
    for entry in sorted(entries, key=story.order_of):
        if entry.meta.causation_id in found:
            found.add(entry.event_id)
    return found


def _retrains(log: _Log, answers: Answers) -> list[Retrain]:
    alerts = log.alerts()
    found: list[Retrain] = []
    for entry, _ in log.of(monitor.RetrainRequested):
        alert_entry, alert = alerts.get(entry.meta.causation_id, _NO_ALERT)
        promotions = log.effects(entry.event_id, registry.VersionPromoted)
        promoted = promotions[0] if promotions else None
        routed = [
            routed
            for routed, change in log.of(serving.RoutesChanged)
            if promoted and [route.version for route in change.routes] == [promoted[1].version]
        ]
        start = _seconds(alert_entry if alert_entry.event_id else entry)
        end = _seconds(promoted[0]) if promoted else None
        found.append(
            Retrain(
                alert=alert.summary,
                kind=_kind_of(alert),
                onset=alert.onset.ToJsonString(),
                evidence=_evidence(alert),
                alert_event=alert_entry.event_id,
                requested_event=entry.event_id,
                promoted_event=promoted[0].event_id if promoted else "",
                version=promoted[1].version if promoted else "",
                alert_to_promotion_s=end - start if end else None,
                alert_to_serving_s=_seconds(routed[0]) - start if routed else None,
                flights_between=int(((answers.times >= start) & (answers.times < end)).sum()) if end else None,
                event_time=alert.slot.ToJsonString(),
            )
        )
    return found


def _rollbacks(log: _Log, answers: Answers) -> list[Rollback]:
    alerts = log.alerts()
    found: list[Rollback] = []
    for entry, message in log.of(monitor.RollbackRequested):
        alert_entry, alert = alerts.get(entry.meta.causation_id, _NO_ALERT)
        blocked = log.effects(entry.event_id, serving.VersionBlocked)
        rolled_back = log.effects(entry.event_id, registry.VersionRolledBack)
        promoted = [each for each, other in log.of(registry.VersionPromoted) if other.version == message.bad_version]
        start = _seconds(entry)
        bad = list(answers.names).index(message.bad_version) if message.bad_version in answers.names else -2
        found.append(
            Rollback(
                bad_version=message.bad_version,
                version=rolled_back[0][1].version if rolled_back else "",
                evidence=_evidence(alert),
                alert_event=alert_entry.event_id,
                requested_event=entry.event_id,
                blocked_event=blocked[0][0].event_id if blocked else "",
                rolled_back_event=rolled_back[0][0].event_id if rolled_back else "",
                promoted_to_alert_s=_seconds(alert_entry) - _seconds(promoted[-1])
                if promoted and alert_entry.event_id
                else None,
                request_to_serving_s=_seconds(blocked[0][0]) - start if blocked else None,
                request_to_alias_s=_seconds(rolled_back[0][0]) - start if rolled_back else None,
                flights_answered=int((answers.versions == bad).sum()),
            )
        )
    return found


def _evidence(alert: Alert) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(each.channel, each.statistic, each.value, each.threshold, each.observed, each.reference)
        for each in alert.findings
    )


def _kind_of(alert: Alert) -> str:
    return AlertKind.Name(alert.kind).removeprefix("ALERT_KIND_")


def _seconds(entry: LogEntry) -> float:
    """When an event was recorded, seconds since 1970 by the database's clock."""
    return entry.recorded_at.seconds + entry.recorded_at.nanos / 1e9
