"""What the loop came to: drift, alert, retrain, new version, rollback, with the events that prove it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from flights.data import Flights, Floats, microseconds
from flights.model import Predictor
from flights.stream import Answers, Progress
from headrace import story
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.monitor.v1 import events_pb2 as monitor
from headrace.api.monitor.v1 import resources_pb2 as monitor_resources
from headrace.api.monitor.v1.service_pb2 import GetCountsResponse
from headrace.api.registry.v1 import events_pb2 as registry
from headrace.api.serving.v1 import events_pb2 as serving

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Retrain:
    """One closed loop: drift to a new version that serves.

    Attributes:
        alert: What was found.
        alert_event: Id of AlertRaised.
        requested_event: Id of RetrainRequested.
        promoted_event: Id of VersionPromoted; empty when the candidate did not take over.
        version: The version promoted; empty likewise.
        alert_to_promotion_s: Seconds between the two; None likewise.
        alert_to_serving_s: Seconds from the alert to RoutesChanged of serving; None likewise.
        flights_between: Flights answered between alert and promotion; None likewise.
        event_time: Event time of the slot that decided, ISO 8601.
    """

    alert: str
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
        alert_event: Id of AlertRaised.
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
    alert_event: str
    requested_event: str
    blocked_event: str
    rolled_back_event: str
    promoted_to_alert_s: float | None
    request_to_serving_s: float | None
    request_to_alias_s: float | None
    flights_answered: int


@dataclass(frozen=True, slots=True)
class Errors:
    """Mean absolute errors in minutes on the same flights.

    Attributes:
        with_loop: Of what was answered.
        frozen: Of the first model, had it answered everything.
        flights: Flights compared.
        with_loop_but_bad: As ``with_loop``, without the flights that a version made bad on purpose answered.
        frozen_but_bad: As ``frozen``, on those same flights.
    """

    with_loop: float
    frozen: float
    flights: int
    with_loop_but_bad: float
    frozen_but_bad: float


@dataclass(frozen=True, slots=True)
class Report:
    """The demo's result."""

    flights: int
    seconds: float
    predictions_sent: int
    predictions_counted: int
    predictions_of_unknown_outcome: int
    labels_sent: int
    labels_joined: int
    batches_lost: int
    errors: Errors
    errors_july_to_october: Errors | None
    retrains: tuple[Retrain, ...]
    rollbacks: tuple[Rollback, ...]
    alerts: int
    console: str

    @property
    def closed(self) -> bool:
        """Whether drift led to a promoted version, a bad one was rolled back, and everything sent was counted."""
        retrained = any(each.promoted_event for each in self.retrains)
        rolled_back = any(each.rolled_back_event for each in self.rollbacks)
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
    return Report(
        flights=len(replayed),
        seconds=seconds,
        predictions_sent=progress.predictions,
        predictions_counted=counts.predictions,
        predictions_of_unknown_outcome=progress.repeated,
        labels_sent=progress.labels,
        labels_joined=counts.labels_joined,
        batches_lost=counts.batches_lost,
        errors=_errors(answers.predictions, frozen, replayed.labels, bad),
        errors_july_to_october=_errors(
            answers.predictions[july_to_october],
            frozen[july_to_october],
            replayed.labels[july_to_october],
            bad[july_to_october],
        )
        if len(summer)
        else None,
        retrains=tuple(_retrains(log, answers)),
        rollbacks=rollbacks,
        alerts=len(log.of(monitor.AlertRaised)),
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
    alerts = {message.alert.name: (entry, message.alert) for entry, message in log.of(monitor.AlertRaised)}
    found: list[Retrain] = []
    for entry, message in log.of(monitor.RetrainRequested):
        alert_entry, alert = alerts.get(message.alert, (entry, monitor_resources.Alert()))
        promotions = log.effects(entry.event_id, registry.VersionPromoted)
        promoted = promotions[0] if promotions else None
        routed = [
            routed
            for routed, change in log.of(serving.RoutesChanged)
            if promoted and [route.version for route in change.routes] == [promoted[1].version]
        ]
        start = _seconds(alert_entry)
        end = _seconds(promoted[0]) if promoted else None
        found.append(
            Retrain(
                alert=alert.summary,
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
    found: list[Rollback] = []
    for entry, message in log.of(monitor.RollbackRequested):
        blocked = log.effects(entry.event_id, serving.VersionBlocked)
        rolled_back = log.effects(entry.event_id, registry.VersionRolledBack)
        promoted = [each for each, other in log.of(registry.VersionPromoted) if other.version == message.bad_version]
        start = _seconds(entry)
        bad = list(answers.names).index(message.bad_version) if message.bad_version in answers.names else -2
        found.append(
            Rollback(
                bad_version=message.bad_version,
                version=rolled_back[0][1].version if rolled_back else "",
                alert_event=entry.meta.causation_id,
                requested_event=entry.event_id,
                blocked_event=blocked[0][0].event_id if blocked else "",
                rolled_back_event=rolled_back[0][0].event_id if rolled_back else "",
                promoted_to_alert_s=start - _seconds(promoted[-1]) if promoted else None,
                request_to_serving_s=_seconds(blocked[0][0]) - start if blocked else None,
                request_to_alias_s=_seconds(rolled_back[0][0]) - start if rolled_back else None,
                flights_answered=int((answers.versions == bad).sum()),
            )
        )
    return found


def _errors(loop: Floats, frozen: Floats, labels: Floats, bad: npt.NDArray[np.bool_]) -> Errors:
    known = ~np.isnan(labels) & ~np.isnan(loop)
    loop_error, frozen_error = np.abs(loop - labels), np.abs(frozen - labels)
    good = known & ~bad
    return Errors(
        with_loop=_mean(loop_error[known]),
        frozen=_mean(frozen_error[known]),
        flights=int(known.sum()),
        with_loop_but_bad=_mean(loop_error[good]),
        frozen_but_bad=_mean(frozen_error[good]),
    )


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _seconds(entry: LogEntry) -> float:
    """When an event was recorded, seconds since 1970 by the database's clock."""
    return entry.recorded_at.seconds + entry.recorded_at.nanos / 1e9
