"""The closed loop on a year of flights, from an empty platform to the report.

``headrace demo`` starts the platform and calls ``play``; with one running, ``python -m flights.demo`` (from examples/).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import grpc

import headrace
from flights import data, lifecycle, pipeline
from flights.replay import Replay
from flights.report import Report, make_report
from flights.stream import Application, Progress
from headrace import events, story
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.monitor.v1 import service_pb2 as monitor
from headrace.api.orchestrator.v1 import resources_pb2 as orchestrator_resources
from headrace.api.orchestrator.v1 import service_pb2 as orchestrator
from headrace.connection import Connection

WINDOW_S: Final = 3 * 3600
"""Flights that leave within so long share requests."""
HASTY_FROM: Final = data.microseconds(2013, 9)
"""When somebody releases in a hurry, event time."""
SETTLE_S: Final = 60.0
PACES: Final = (1_500.0, 5_000.0)
"""The least and the most flights a second that ``pace_for`` gives."""
FLIGHTS_WHILE_TRAINING: Final = 60_000
"""Those of about two months."""
_ENDED: Final = (
    orchestrator_resources.PIPELINE_RUN_STATUS_SUCCEEDED,
    orchestrator_resources.PIPELINE_RUN_STATUS_FAILED,
    orchestrator_resources.PIPELINE_RUN_STATUS_CANCELLED,
)


@dataclass(slots=True)
class Stage:
    """What the demo is doing; read by whoever shows it.

    Attributes:
        title: What it does now, in a few words.
        application: The application, once it plays.
        rows: Flights it will play.
        entries: The platform's log so far, by event id.
        stopped: Set it to end early.
    """

    title: str = "starting"
    application: Application | None = None
    rows: int = 0
    entries: dict[str, LogEntry] = field(default_factory=dict[str, LogEntry])
    stopped: threading.Event = field(default_factory=threading.Event)


class DemoStopped(Exception):
    """Somebody ended the demo early."""


def play(
    connection: Connection,
    *,
    pace: float | None = 0.0,
    from_us: int = data.microseconds(2013, 3),
    until_us: int = data.microseconds(2014, 1),
    hasty_from_us: int = HASTY_FROM,
    stage: Stage | None = None,
) -> Report:
    """Train, serve, watch, retrain and roll back, on the platform of ``connection``.

    Args:
        connection: A platform without the demo's model.
        pace: Flights a second at most; 0 for as fast as the machine goes, None for what ``pace_for`` says.
        from_us: Start of the replay, event time, microseconds since 1970 UTC.
        until_us: End of the replay, event time, microseconds since 1970 UTC.
        hasty_from_us: Event time from which on a bad version is released by hand, as soon as no rollout is under way.
        stage: Where to say how far it is.

    Raises:
        DemoStopped: ``stage.stopped`` was set.
        headrace.HeadraceError, grpc.RpcError: The platform refused, or stayed away.
    """
    stage = stage or Stage()
    with headrace.connect(connection) as client:
        began = time.monotonic()
        stage.title = "training the first model"
        first = lifecycle.train_first()
        pace = pace_for(time.monotonic() - began) if pace is None else pace
        _check(stage)
        stage.title = "approving, promoting, opening the endpoint"
        lifecycle.open_endpoint(client, first)
        lifecycle.wait_until_serving(client, first)
        replay = Replay(data.load().between(from_us, until_us), window_s=WINDOW_S)
        stage.rows = len(replay.flights)
        stage.application = Application(connection, project="default", endpoint="delays", replay=replay, pace=pace)
        stage.title = f"replaying the year at {pace:,.0f} flights/s" if pace else "replaying the year"
        watcher = _background(_follow, client, stage)
        hasty = _background(_release_in_a_hurry, client, stage, hasty_from_us)
        played = time.monotonic()
        answers = asyncio.run(stage.application.run(stage.stopped.is_set))
        seconds = time.monotonic() - played
        _check(stage)
        stage.title = "letting the loop settle"
        counts, settled = _settle(client, stage, stage.application.progress)
        stage.title = f"done in {time.monotonic() - began:.0f} s"
        stage.stopped.set()
        for thread in (watcher, hasty):
            thread.join(timeout=10)
        return make_report(
            story.read_logs(client, prefix="projects/default/"),
            replayed=replay.flights,
            answers=answers,
            progress=stage.application.progress,
            counts=counts,
            settled=settled,
            first_model=pipeline.download(client, first),
            seconds=seconds,
            console=connection.gateway_url,
        )


def pace_for(training_s: float) -> float:
    """Flights a second, so that about two months pass on this machine while a version is retrained.

    Args:
        training_s: How long the first version took. A retraining takes longer, since the replay goes on beside it.
    """
    return max(PACES[0], min(PACES[1], FLIGHTS_WHILE_TRAINING / training_s))


def _release_in_a_hurry(client: headrace.Client, stage: Stage, from_us: int) -> None:
    """A careless colleague trains a version; once it is time and no rollout is under way, it is promoted by hand."""
    careless = lifecycle.train_first(careless=True)
    while not stage.stopped.wait(0.1):
        application = stage.application
        if application is None or application.progress.event_us < from_us:
            continue
        try:
            if lifecycle.rollout_under_way(client):
                continue
        except grpc.RpcError:  # serving is away; it comes back
            continue
        lifecycle.approve_and_promote(client, careless, reason="a release in a hurry: straight to everybody")
        return


def _follow(client: headrace.Client, stage: Stage) -> None:
    """Keeps ``stage.entries`` up to date; a service that goes away is waited for."""
    with events.subscribe(
        "demo", project="default", start=events.BEGINNING, cursor=events.MemoryCursor(), connection=client.connection
    ) as subscription:
        while not stage.stopped.is_set():
            delivery = subscription.take(timeout_s=0.5)
            if delivery is not None:
                with delivery as event:
                    stage.entries[event.id] = event.entry


def _settle(client: headrace.Client, stage: Stage, progress: Progress) -> tuple[monitor.GetCountsResponse, bool]:
    """Waits until everything sent was counted and nothing is under way any more.

    Returns:
        The counts, and whether it came to that within ``SETTLE_S``.
    """
    deadline = time.monotonic() + SETTLE_S
    request = monitor.GetCountsRequest(endpoint=lifecycle.ENDPOINT)
    while True:
        _check(stage)
        counts = lifecycle.patiently(client.monitor.GetCounts, request)
        counted = counts.predictions >= progress.predictions and counts.labels_joined >= progress.labels
        settled = counted and not _under_way(client)
        if settled or time.monotonic() > deadline:
            return counts, settled
        time.sleep(0.2)


def _under_way(client: headrace.Client) -> bool:
    request = orchestrator.ListPipelineRunsRequest(parent="projects/default")
    runs = lifecycle.patiently(client.orchestrator.ListPipelineRuns, request).runs
    return any(run.status not in _ENDED for run in runs)


def _background(work: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, name=work.__name__, daemon=True)
    thread.start()
    return thread


def _check(stage: Stage) -> None:
    if stage.stopped.is_set():
        raise DemoStopped


__all__ = ["DemoStopped", "Stage", "play"]
