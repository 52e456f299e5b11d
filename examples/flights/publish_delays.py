"""An application that serves its own model, on a running platform: monitor, predictions, late labels, and what came.

    headrace up --detach
    cd examples
    python -m flights.publish_delays            # over gRPC
    python -m flights.publish_delays --kafka    # straight to Kafka

The model never leaves the application. It is fitted on January; February, which it has not seen, tells the monitor what
is usual; from March on it answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final
from uuid import uuid4

import numpy as np

import headrace
from flights import data
from flights.data import FEATURES, Flights
from flights.delayed import OUTPUT, DelayClassifier, Outcome, Scored, late, publications
from flights.publishing import GrpcPublisher, KafkaPublisher, Publisher
from flights.replay import SLOT_S, Replay
from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.common.v1.telemetry_pb2 import COLUMN_ROLE_OUTPUT
from headrace.api.monitor.v1 import resources_pb2 as resources
from headrace.api.monitor.v1 import service_pb2 as monitor
from headrace.kafka import SHARDS, ColumnData, group_labels, new_id
from headrace.kafka.producer import Prediction
from headrace.reference import reference_profile

VERSION: Final = "late-arrivals 2013-02"
"""The application's own name for its model."""
AT_ONCE: Final = 48
"""Requests published together."""
SETTLE_S: Final = 90.0
_ABOUT: Final = "Publish the scores of a model that the platform does not serve."
_DAY_S: Final = 24 * 3600


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What was sent, and what the monitor made of it.

    Attributes:
        predictions_sent: Scores that Kafka acknowledged.
        predictions_counted: Scores that the monitor counted.
        labels_sent: Outcomes that Kafka acknowledged.
        labels_joined: Outcomes that met their score.
        batches_lost: Batches known to be missing.
        windows: Slots in the monitor's series.
        windows_closed: Those of them that were decided on.
        log_loss: Mean over the joined outcomes.
        alerts: What was alerted to, oldest first.
    """

    predictions_sent: int
    predictions_counted: int
    labels_sent: int
    labels_joined: int
    batches_lost: int
    windows: int
    windows_closed: int
    log_loss: float
    alerts: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether everything sent was counted, once."""
        return (self.predictions_counted, self.labels_joined) == (self.predictions_sent, self.labels_sent)


class Application:
    """Scores flights as they leave, and publishes scores and outcomes.

    Args:
        publisher: The way to the platform.
        project: Project id.
        endpoint: Endpoint id; the platform serves nothing there, it only watches.
    """

    def __init__(self, publisher: Publisher, *, project: str, endpoint: str) -> None:
        self.predictions_sent = self.labels_sent = 0
        self._publisher, self._project, self._endpoint = publisher, project, endpoint
        self._ids: dict[int, str] = {}
        self._scored: list[Scored] = []
        self._outcomes: list[Outcome] = []

    async def run(self, classifier: DelayClassifier, replay: Replay) -> None:
        """Plays to the end. Raises what the publisher raises."""
        for each in publications(classifier, replay):
            if isinstance(each, Scored):
                self._scored.append(each)
            else:
                self._outcomes.append(each)
            if len(self._scored) >= AT_ONCE:
                await self._publish()
        await self._publish()

    async def _publish(self) -> None:
        scored, outcomes = self._scored, self._outcomes
        self._scored, self._outcomes = [], []
        if scored:
            await self._publisher.predictions([self._prediction(each) for each in scored])
            self.predictions_sent += sum(len(each.scores) for each in scored)
        if outcomes:
            requests = np.concatenate([each.requests for each in outcomes]).tolist()
            labels = group_labels(
                self._project,
                self._endpoint,
                ids=[self._ids[number] for number in requests],
                values=ColumnData.of("late", np.concatenate([each.late for each in outcomes])),
                times_us=np.concatenate([each.label_us for each in outcomes]).tolist(),
                rows=np.concatenate([each.rows for each in outcomes]).tolist(),
            )
            await self._publisher.labels(labels)
            self.labels_sent += len(requests)

    def _prediction(self, scored: Scored) -> Prediction:
        self._ids[scored.number] = new_id(scored.number % SHARDS)
        inputs = [ColumnData.of(name, scored.features[:, place]) for place, name in enumerate(FEATURES)]
        return Prediction(
            project=self._project,
            endpoint=self._endpoint,
            model_version=VERSION,
            time_us=scored.event_us,
            columns=[*inputs, ColumnData.of(OUTPUT, scored.scores, COLUMN_ROLE_OUTPUT)],
            id=self._ids[scored.number],
        )


def play(
    client: headrace.Client, *, project: str, endpoint: str, months: tuple[int, int] = (3, 5), kafka: bool = False
) -> Outcomes:
    """Fit, create the monitor, publish, and read what the monitor has.

    Args:
        client: A running platform.
        project: Project id.
        endpoint: Endpoint id, and id of its monitor; a monitor of the name is used as it is.
        months: First and last month of 2013 to answer in, 3 to 12.
        kafka: Straight to Kafka instead of over gRPC.

    Raises:
        headrace.HeadraceError, grpc.RpcError: The platform refused, or stayed away.
    """
    flights = data.load()
    classifier = DelayClassifier(flights.between(data.microseconds(2013, 1), data.microseconds(2013, 2)))
    held_out = flights.between(data.microseconds(2013, 2), data.microseconds(2013, 3)).labelled()
    watch(client, project=project, endpoint=endpoint, reference=_reference(classifier, held_out, project=project))
    year, month = divmod(months[1], 12)
    until = data.microseconds(2013 + year, month + 1)
    replay = Replay(flights.between(data.microseconds(2013, months[0]), until))
    publisher = KafkaPublisher(client.connection.kafka_bootstrap) if kafka else GrpcPublisher(client)

    async def publish() -> Application:
        async with publisher:
            application = Application(publisher, project=project, endpoint=endpoint)
            await application.run(classifier, replay)
        return application

    return _settle(client, asyncio.run(publish()), project=project, endpoint=endpoint)


def watch(client: headrace.Client, *, project: str, endpoint: str, reference: ObjectRef) -> None:
    """Create the monitor of the application's endpoint."""
    config = resources.MonitorConfig(
        task=resources.TASK_KIND_BINARY_CLASSIFICATION,
        prediction_column=OUTPUT,
        slot_s=SLOT_S,
        lateness_s=2 * SLOT_S,
        minimum_samples=50,
        consecutive_slots=4,
        cooldown_s=14 * _DAY_S,
        features=[name for name in FEATURES if name not in ("hour", "weekday")],
        false_alarm_budget=1.0,
        drift_action=resources.DRIFT_ACTION_ALERT,
        reference_profile=reference,
    )
    name = f"projects/{project}/monitors/{endpoint}"
    existing = client.monitor.ListMonitors(monitor.ListMonitorsRequest(parent=f"projects/{project}", page_size=1000))
    if name not in [each.name for each in existing.monitors]:
        client.monitor.CreateMonitor(
            monitor.CreateMonitorRequest(command_id=str(uuid4()), name=name, endpoint=endpoint, config=config)
        )


def _reference(classifier: DelayClassifier, held_out: Flights, *, project: str) -> ObjectRef:
    """What is usual, recorded as an artifact of a run."""
    scores, outcomes = classifier.scores(held_out.features), late(held_out.labels)
    profile = reference_profile(
        {name: held_out.features[:, place] for place, name in enumerate(FEATURES)},
        predictions=scores,
        labels=outcomes,
        times_us=held_out.event_us,
        slot_s=SLOT_S,
        task=resources.TASK_KIND_BINARY_CLASSIFICATION,
        prediction_name=OUTPUT,
    )
    with headrace.start_run("late-arrivals", name=VERSION, project=project) as run:
        run.log_metric("accuracy", float(((scores > 0.5) == outcomes).mean()))
        reference = run.log_bytes(
            profile.SerializeToString(deterministic=True), "reference.binpb", media_type="application/protobuf"
        )
        if not run.flush():
            raise ConnectionError("the tracker did not take the run in time; try again")
    return reference


def _settle(client: headrace.Client, sent: Application, *, project: str, endpoint: str) -> Outcomes:
    """Waits until everything sent was counted; gives up after ``SETTLE_S`` and tells what there is."""
    deadline = time.monotonic() + SETTLE_S
    request = monitor.GetCountsRequest(endpoint=f"projects/{project}/endpoints/{endpoint}")
    counts = client.monitor.GetCounts(request)
    while time.monotonic() < deadline and (
        counts.predictions < sent.predictions_sent or counts.labels_joined < sent.labels_sent
    ):
        time.sleep(0.2)
        counts = client.monitor.GetCounts(request)
    name = f"projects/{project}/monitors/{endpoint}"
    windows = client.monitor.ListWindows(monitor.ListWindowsRequest(monitor=name, page_size=10_000)).windows
    alerts = client.monitor.ListAlerts(
        monitor.ListAlertsRequest(parent=f"projects/{project}", monitor=name, page_size=1000)
    ).alerts
    joined = sum(each.labels for each in windows)
    return Outcomes(
        predictions_sent=sent.predictions_sent,
        predictions_counted=counts.predictions,
        labels_sent=sent.labels_sent,
        labels_joined=counts.labels_joined,
        batches_lost=counts.batches_lost,
        windows=len(windows),
        windows_closed=sum(each.closed for each in windows),
        log_loss=sum(each.mean_error * each.labels for each in windows if each.labels) / max(joined, 1),
        alerts=tuple(each.summary for each in reversed(alerts)),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from a shell; 0 when everything sent was counted."""
    parser = argparse.ArgumentParser(prog="python -m flights.publish_delays", description=_ABOUT)
    parser.add_argument("--kafka", action="store_true", help="straight to Kafka instead of over gRPC")
    parser.add_argument("--from-month", type=int, default=3, choices=range(3, 13), help="first month of 2013 (3)")
    parser.add_argument("--to-month", type=int, default=5, choices=range(3, 13), help="last month of 2013 (5)")
    parser.add_argument("--project", default="default")
    parser.add_argument("--endpoint", default="late-arrivals", help="id of the endpoint and of its monitor")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    given = parser.parse_args(arguments)
    with headrace.connect() as client:
        outcome = play(
            client,
            project=given.project,
            endpoint=given.endpoint,
            months=(given.from_month, given.to_month),
            kafka=given.kafka,
        )
    if given.json:
        print(json.dumps({**asdict(outcome), "complete": outcome.complete}, indent=2))
    else:
        print(f"{outcome.predictions_sent} scores sent, {outcome.predictions_counted} counted")
        print(
            f"{outcome.labels_sent} outcomes sent, {outcome.labels_joined} joined; {outcome.batches_lost} batches lost"
        )
        print(f"{outcome.windows} slots, {outcome.windows_closed} closed; log loss {outcome.log_loss:.3f}")
        for alert in outcome.alerts:
            print(f"alert: {alert}")
    return 0 if outcome.complete else 1


if __name__ == "__main__":
    raise SystemExit(main())
