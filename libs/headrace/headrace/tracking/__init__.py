"""Runs from training code; see ``start_run``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import grpc

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.channel import connect
from headrace.connection import data_folder
from headrace.tracking.capture import Code, capture_code, capture_environment
from headrace.tracking.datasets import describe_dataset
from headrace.tracking.evaluation import ConfusionMatrix, confusion_matrix
from headrace.tracking.run import Run
from headrace.tracking.sender import Sender, TrackerDownError
from headrace.tracking.spool import Spool, SpoolBusyError, pending_runs

__all__ = [
    "Code",
    "ConfusionMatrix",
    "Run",
    "TrackerDownError",
    "confusion_matrix",
    "describe_dataset",
    "resume_run",
    "spool_folder",
    "start_run",
    "sync",
]

FLUSH_TIMEOUT_S: Final = 10.0


def start_run(
    experiment: str,
    *,
    name: str = "",
    tags: Mapping[str, str] | None = None,
    parent: Run | str | None = None,
    project: str = "default",
    run_id: UUID | None = None,
    flush_timeout_s: float = FLUSH_TIMEOUT_S,
) -> Run:
    """Starts a run and captures code, command line, packages and machine.

    Never waits for the tracker and never fails because of it: what is recorded goes to ``spool_folder()`` and is sent,
    in order and once, as soon as the tracker can be reached, by this process or a later one.

    Args:
        experiment: The question this run helps to answer; created when it is new.
        name: Name for people; made up when empty.
        tags: Tags.
        parent: The run this one is part of.
        project: Project.
        run_id: Id of the run, when the caller must know it beforehand.
        flush_timeout_s: How long the end of the run waits for the tracker.
    """
    identity = str(run_id or uuid4())
    code = capture_code()
    request = service.StartRunRequest(
        name=f"projects/{project}/runs/{identity}",
        experiment=f"projects/{project}/experiments/{experiment}",
        display_name=name,
        tags=dict(tags or {}),
        code=code.version,
        environment=capture_environment(),
        parent_run=parent.name if isinstance(parent, Run) else parent or "",
        pipeline_run=os.environ.get("HEADRACE_PIPELINE_RUN", ""),
    )
    request.start_time.GetCurrentTime()
    run = _open(request.name, flush_timeout_s)
    run.begin(request, code)
    return run


def resume_run(run: str, *, project: str = "default", flush_timeout_s: float = FLUSH_TIMEOUT_S) -> Run:
    """Goes on with a run that had ended, by its id or resource name."""
    name = run if run.startswith("projects/") else f"projects/{project}/runs/{run}"
    resumed = _open(name, flush_timeout_s)
    resumed.begin(service.ResumeRunRequest(run=name), None)
    return resumed


def sync() -> list[str]:
    """Sends what earlier runs of this machine left in the spool; returns the ids of runs that are whole now.

    Raises:
        TrackerDownError: The tracker can not be reached; what is left stays.
    """
    folder, sent = spool_folder(), list[str]()
    for run_id in pending_runs(folder):
        try:
            spool = Spool(folder, run_id)
        except SpoolBusyError:  # its own process still writes it
            continue
        sender = Sender(spool, _name_in(spool), folder, _connect)
        try:
            sender.send_all()
            sent.append(run_id)
        finally:
            sender.close()
    return sent


def spool_folder() -> Path:
    """Where runs are kept until the tracker has them: ``$HEADRACE_SPOOL``, or ``spool`` in the data folder."""
    given = os.environ.get("HEADRACE_SPOOL")
    return Path(given) if given else data_folder() / "spool"


def _open(name: str, flush_timeout_s: float) -> Run:
    folder = spool_folder()
    spool = Spool(folder, name.rpartition("/")[2])
    return Run(name, spool=spool, folder=folder, connect=_connect, flush_timeout_s=flush_timeout_s)


def _connect() -> grpc.Channel:
    return connect("tracking")


def _name_in(spool: Spool) -> str:
    """The run of a spool, as its first record names it."""
    first = next(spool.records(0), None)
    if first is None:
        return f"projects/default/runs/{spool.run_id}"
    started = service.StartRunRequest.FromString(first.payload)
    return started.name or service.ResumeRunRequest.FromString(first.payload).run
