"""Runs from training code; see ``start_run``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import grpc

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.service_pb2_grpc import TrackingServiceStub
from headrace.channel import connect
from headrace.connection import data_folder
from headrace.errors import rpc_errors
from headrace.tracking.capture import Code, capture_code, capture_environment
from headrace.tracking.datasets import describe_dataset
from headrace.tracking.evaluation import ConfusionMatrix, confusion_matrix
from headrace.tracking.run import Run
from headrace.tracking.sender import Sender, Sending, TrackerDownError
from headrace.tracking.spool import Spool, SpoolBusyError, SpoolDamagedError, pending_runs
from headrace.transfer import download_file

__all__ = [
    "Code",
    "ConfusionMatrix",
    "Run",
    "Sending",
    "SpoolDamagedError",
    "TrackerDownError",
    "confusion_matrix",
    "describe_dataset",
    "download_artifact",
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
    offline: bool | None = None,
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
        offline: Record to ``spool_folder()`` alone, for ``headrace sync`` to send, here or elsewhere;
            by default when HEADRACE_OFFLINE is 1.
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
    run = _open(request.name, flush_timeout_s, offline=_is_offline() if offline is None else offline)
    run.begin(request, code)
    return run


def resume_run(run: str, *, project: str = "default", flush_timeout_s: float = FLUSH_TIMEOUT_S) -> Run:
    """Goes on with a run that had ended, by its id or resource name."""
    name = run if run.startswith("projects/") else f"projects/{project}/runs/{run}"
    resumed = _open(name, flush_timeout_s, offline=_is_offline())
    resumed.begin(service.ResumeRunRequest(run=name), None)
    return resumed


def download_artifact(run: str, path: str, target: Path, *, project: str = "default") -> None:
    """Writes a file of a run, straight from the object store: verified by its digest, and whole or not at all.

    A download that broke off is gone on with, in this call or by a later one.

    Args:
        run: Id or resource name of the run; also the resource name of a logged model.
        path: Path of the file within it.
        target: Where to write it; replaced when there is one.
        project: Project of a run that is named by its id.

    Raises:
        NotFound: There is no such run, or no such file in it.
        TransferRefused: The store has other bytes than those that were logged.
        TransferInterrupted: The store can not be reached.
    """
    name = run if run.startswith("projects/") else f"projects/{project}/runs/{run}"
    request = service.PresignDownloadRequest(run=name, path=path)
    with rpc_errors(), connect("tracking") as channel:
        stub = TrackingServiceStub(channel)
        wanted = stub.PresignDownload(request).object
        download_file(lambda: stub.PresignDownload(request).url, wanted, target)


def sync(folder: Path | None = None, *, tell: Callable[[Sending], None] = lambda _: None) -> list[str]:
    """Sends what earlier runs left in a spool folder; returns the ids of runs that are whole now.

    Each thing is recorded once, however often this is called and whenever it is killed, with the times at which it
    happened. Runs whose process is still there are left to it.

    Args:
        folder: By default ``spool_folder()``.
        tell: Called with the progress of each run.

    Raises:
        TrackerDownError: The tracker can not be reached; what is left stays.
        SpoolDamagedError: A spool can not be read; it is left as it is, and all others are sent.
    """
    folder, sent, damaged = folder or spool_folder(), list[str](), list[str]()
    for run_id in pending_runs(folder):
        try:
            spool = Spool(folder, run_id)
        except SpoolBusyError:
            continue
        except SpoolDamagedError as error:
            damaged.append(str(error))
            continue
        sender = Sender(spool, _name_in(spool), folder, _connect)
        try:
            sender.send_all(tell)
            sent.append(run_id)
        finally:
            sender.close()
    if damaged:
        raise SpoolDamagedError("; ".join(damaged))
    return sent


def spool_folder() -> Path:
    """Where runs are kept until the tracker has them: ``$HEADRACE_SPOOL``, or ``spool`` in the data folder."""
    given = os.environ.get("HEADRACE_SPOOL")
    return Path(given) if given else data_folder() / "spool"


def _is_offline() -> bool:
    return os.environ.get("HEADRACE_OFFLINE", "") not in ("", "0")


def _open(name: str, flush_timeout_s: float, *, offline: bool) -> Run:
    folder = spool_folder()
    spool = Spool(folder, name.rpartition("/")[2])
    return Run(name, spool=spool, folder=folder, connect=_connect, flush_timeout_s=flush_timeout_s, offline=offline)


def _connect() -> grpc.Channel:
    return connect("tracking")


def _name_in(spool: Spool) -> str:
    """The run of a spool, as its first record names it."""
    first = next(spool.records(0), None)
    if first is None:
        return f"projects/default/runs/{spool.run_id}"
    started = service.StartRunRequest.FromString(first.payload)
    return started.name or service.ResumeRunRequest.FromString(first.payload).run
