"""Runs from training code; see ``start_run``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal
from uuid import UUID, uuid4

import grpc

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.service_pb2_grpc import TrackingServiceStub
from headrace.channel import connect
from headrace.connection import data_folder
from headrace.errors import rpc_errors
from headrace.tracking import machine
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
CaptureOutput = bool | Literal["fd"]


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
    system_metrics: bool | None = None,
    capture_output: CaptureOutput | None = None,
    group: str = "",
    fork_from: Run | str = "",
    at_step: int | None = None,
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
        system_metrics: Sample the machine every 10 seconds (HEADRACE_SYSTEM_METRICS_S) as metrics ``system/...``: see
            ``headrace.tracking.machine``; by default unless HEADRACE_SYSTEM_METRICS is 0.
        capture_output: Keep what is written to ``sys.stdout`` and ``sys.stderr``; ``"fd"`` hears subprocesses and C
            libraries too: see ``headrace.tracking.output``; by default unless HEADRACE_CAPTURE_OUTPUT is 0 or ``fd``.
        group: What it is grouped with, such as the folds of one validation; by default HEADRACE_GROUP.
        fork_from: Run, or its id, whose metrics up to ``at_step`` are the beginning of this run's: they are read from
            there, not copied. Parameters and files are not taken over.
        at_step: Last step of that beginning; this run's own steps go on behind it.

    Raises:
        ValueError: ``fork_from`` without ``at_step``, or the other way round.
    """
    if (at_step is None) != (not fork_from) or (at_step or 0) < 0:
        raise ValueError("a fork needs both the run it goes on with and a step of it, from 0")
    identity = str(run_id or uuid4())
    code = capture_code()
    request = service.StartRunRequest(
        name=f"projects/{project}/runs/{identity}",
        experiment=f"projects/{project}/experiments/{experiment}",
        display_name=name,
        tags={**_origin(), **(tags or {})},
        code=code.version,
        environment=capture_environment(),
        parent_run=_run_name(parent or "", project),
        pipeline_run=os.environ.get("HEADRACE_PIPELINE_RUN", ""),
        group=group or os.environ.get("HEADRACE_GROUP", ""),
        forked_from=_run_name(fork_from, project),
        fork_step=at_step or 0,
    )
    request.start_time.GetCurrentTime()
    run = _open(request.name, flush_timeout_s, offline=offline)
    run.begin(request, code)
    _watch(run, system_metrics=system_metrics, capture_output=capture_output)
    return run


def resume_run(
    run: str,
    *,
    project: str = "default",
    flush_timeout_s: float = FLUSH_TIMEOUT_S,
    system_metrics: bool | None = None,
    capture_output: CaptureOutput | None = None,
) -> Run:
    """Goes on with a run that had ended, by its id or resource name; the rest as for ``start_run``."""
    name = _run_name(run, project)
    resumed = _open(name, flush_timeout_s, offline=None)
    resumed.begin(service.ResumeRunRequest(run=name), None)
    _watch(resumed, system_metrics=system_metrics, capture_output=capture_output)
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


def _origin() -> dict[str, str]:
    """A tag that names the run which this one does again, by ``headrace reproduce``."""
    first = os.environ.get("HEADRACE_REPRODUCES", "")
    return {"headrace.reproduces": first} if first else {}


def _run_name(run: Run | str, project: str) -> str:
    """Resource name of a run, given as itself, by its name or its id; empty for an empty id."""
    given = run.name if isinstance(run, Run) else run
    return given if not given or given.startswith("projects/") else f"projects/{project}/runs/{given}"


def _is_on(variable: str, *, default: str) -> bool:
    return os.environ.get(variable, default) not in ("", "0")


def _watch(run: Run, *, system_metrics: bool | None, capture_output: CaptureOutput | None) -> None:
    run.watch_machine(_interval_s(wanted=system_metrics))
    by_setting = "fd" if os.environ.get("HEADRACE_CAPTURE_OUTPUT") == "fd" else None
    wanted = by_setting or _is_on("HEADRACE_CAPTURE_OUTPUT", default="1") if capture_output is None else capture_output
    if wanted:
        run.hear_output(descriptors=wanted == "fd")


def _interval_s(*, wanted: bool | None) -> float:
    """How often the machine is sampled; 0 for never."""
    if not (_is_on("HEADRACE_SYSTEM_METRICS", default="1") if wanted is None else wanted):
        return 0.0
    return float(os.environ.get("HEADRACE_SYSTEM_METRICS_S", machine.INTERVAL_S))


def _open(name: str, flush_timeout_s: float, *, offline: bool | None) -> Run:
    folder = spool_folder()
    return Run(
        name,
        spool=Spool(folder, name.rpartition("/")[2]),
        folder=folder,
        connect=_connect,
        flush_timeout_s=flush_timeout_s,
        offline=_is_on("HEADRACE_OFFLINE", default="0") if offline is None else offline,
    )


def _connect() -> grpc.Channel:
    return connect("tracking")


def _name_in(spool: Spool) -> str:
    """The run of a spool, as its first record names it."""
    first = next(spool.records(0), None)
    if first is None:
        return f"projects/default/runs/{spool.run_id}"
    started = service.StartRunRequest.FromString(first.payload)
    return started.name or service.ResumeRunRequest.FromString(first.payload).run
