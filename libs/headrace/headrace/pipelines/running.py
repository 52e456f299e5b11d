"""Registered pipelines and their runs, through the orchestrator."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import update_wrapper
from typing import Any, Final, Generic, ParamSpec
from uuid import UUID, uuid4

import grpc

from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace.client import Client, connect
from headrace.errors import DeadlineExceeded, HeadraceError, from_rpc_error
from headrace.pipelines.codec import decode, encode
from headrace.pipelines.graph import trace

P = ParamSpec("P")
_OPEN: Final = (resources.PIPELINE_RUN_STATUS_QUEUED, resources.PIPELINE_RUN_STATUS_RUNNING)
_WATCH_S: Final = 60.0


class PipelineRunFailed(HeadraceError):
    """A run ended without success; ``run`` is how."""

    default_reason = "PIPELINE_RUN_FAILED"

    def __init__(self, run: resources.PipelineRun) -> None:
        status = resources.PipelineRunStatus.Name(run.status).removeprefix("PIPELINE_RUN_STATUS_")
        super().__init__(f"{run.name} is {status}: {run.error}")
        self.run = run


class StartedRun:
    """A run of a pipeline, by its resource name. Methods raise HeadraceError."""

    def __init__(self, name: str, client: Client) -> None:
        self.name = name
        self._client = client

    def state(self) -> resources.PipelineRun:
        """How it is now."""
        with _calling(self._client) as client:
            return client.orchestrator.GetPipelineRun(service.GetPipelineRunRequest(name=self.name)).run

    def watch(self, *, timeout_s: float = 3600.0) -> Iterator[resources.PipelineRun]:
        """How it is now and after each change until it ends; goes on when the orchestrator is started anew.

        Raises:
            DeadlineExceeded: it did not end in time.
        """
        deadline, revision = time.monotonic() + timeout_s, -1
        while (left_s := deadline - time.monotonic()) > 0:
            request = service.WatchPipelineRunRequest(run=self.name)
            try:
                for response in self._client.orchestrator.WatchPipelineRun(request, timeout=min(left_s, _WATCH_S)):
                    if response.run.revision > revision:
                        revision = response.run.revision
                        yield response.run
                    if response.run.status not in _OPEN:
                        return
            except grpc.RpcError as error:
                known = from_rpc_error(error)
                if not known.retryable:
                    raise known from error
                if not isinstance(known, DeadlineExceeded):
                    time.sleep(0.2)
        raise DeadlineExceeded(f"{self.name} did not end within {timeout_s:g} s")

    def wait(self, *, timeout_s: float = 3600.0) -> resources.PipelineRun:
        """Waits for its end.

        Raises:
            PipelineRunFailed: it failed or was cancelled.
            DeadlineExceeded: it did not end in time.
        """
        run = resources.PipelineRun()
        for state in self.watch(timeout_s=timeout_s):
            run = state
        if run.status != resources.PIPELINE_RUN_STATUS_SUCCEEDED:
            raise PipelineRunFailed(run)
        return run

    def output(self, step: str, annotation: object = Any) -> object:
        """What a completed step gave back, as the type of an annotation."""
        request = service.GetStepOutputRequest(run=self.name, step=step)
        with _calling(self._client) as client:
            return decode(client.orchestrator.GetStepOutput(request).json, annotation)

    def logs(self, step: str, *, attempt: int = 0) -> str:
        """What a step wrote so far in an attempt; in the newest by default."""
        text, offset = "", 0
        while True:
            request = service.ReadStepLogsRequest(run=self.name, step=step, attempt=attempt, offset=offset)
            with _calling(self._client) as client:
                response = client.orchestrator.ReadStepLogs(request)
            text += response.text
            if not response.text:
                return text
            offset = response.next_offset

    def cancel(self, reason: str = "") -> None:
        """Ends it, and the processes of its steps."""
        request = service.CancelPipelineRunRequest(command_id=str(uuid4()), run=self.name, reason=reason)
        with _calling(self._client) as client:
            client.orchestrator.CancelPipelineRun(request)

    def resume(self) -> None:
        """Goes on from the steps that were not completed, after a failure or a cancellation."""
        request = service.ResumePipelineRunRequest(command_id=str(uuid4()), run=self.name)
        with _calling(self._client) as client:
            client.orchestrator.ResumePipelineRun(request)


class Pipeline(Generic[P]):
    """A pipeline: a function of steps. Made by ``pipeline``; see there."""

    def __init__(self, function: Callable[P, object], *, name: str, project: str, max_active_runs: int) -> None:
        update_wrapper(self, function)
        self.function = function
        self.id = name or re.sub(r"[^a-z0-9._-]", "-", function.__name__.lower().replace("_", "-"))
        self.project = project
        self.max_active_runs = max_active_runs

    @property
    def name(self) -> str:
        """Resource name."""
        return f"projects/{self.project}/pipelines/{self.id}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> object:
        """Runs it here and now, as the plain function it is: no orchestrator, no retries."""
        return self.function(*args, **kwargs)

    def definition(self) -> resources.PipelineDefinition:
        """Its graph. Raises TypeError and ValueError where the function can not be a pipeline."""
        return trace(self.function, max_active_runs=self.max_active_runs)

    def register(self, client: Client | None = None) -> resources.Pipeline:
        """Makes the orchestrator know it as it is now; nothing happens when it does already."""
        request = service.RegisterPipelineRequest(command_id=str(uuid4()), name=self.name, definition=self.definition())
        with _calling(client or connect()) as connected:
            return connected.orchestrator.RegisterPipeline(request).pipeline

    def start(self, *args: P.args, **kwargs: P.kwargs) -> StartedRun:
        """Registers it and starts a run with these parameters."""
        bound = inspect.signature(self.function).bind(*args, **kwargs)
        return self.start_with(bound.arguments)

    def start_with(
        self, parameters: Mapping[str, object], *, client: Client | None = None, command_id: UUID | None = None
    ) -> StartedRun:
        """As ``start``; with the id of the command, which is the run's, a repeat starts nothing new."""
        connected = client or connect()
        self.register(connected)
        request = service.StartPipelineRunRequest(
            command_id=str(command_id or uuid4()),
            pipeline=self.name,
            parameters={name: encode(value) for name, value in parameters.items()},
        )
        with _calling(connected):
            return StartedRun(connected.orchestrator.StartPipelineRun(request).run.name, connected)

    def schedule(
        self, id: str, cron: str, *, time_zone: str = "UTC", client: Client | None = None, **parameters: object
    ) -> None:
        """Starts a run at the times of a cron expression of five fields."""
        schedule = resources.Schedule(
            id=id, cron=cron, time_zone=time_zone, parameters={name: encode(each) for name, each in parameters.items()}
        )
        connected = client or connect()
        self.register(connected)
        with _calling(connected):
            connected.orchestrator.SetSchedule(
                service.SetScheduleRequest(command_id=str(uuid4()), pipeline=self.name, schedule=schedule)
            )

    def on_event(
        self,
        id: str,
        event_type: str,
        *,
        match: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
        newest_only: bool = False,
        client: Client | None = None,
    ) -> None:
        """Starts a run for each event of a type.

        Args:
            id: Id of the trigger.
            event_type: Such as ``headrace.monitor.v1.RetrainRequested``.
            match: Fields of the event, by path, that must have these values.
            parameters: Name of a parameter -> path of the event's field it takes.
            newest_only: A new run ends those of the trigger that still wait for a place.
            client: The platform; found by default.
        """
        trigger = resources.Trigger(
            id=id, event_type=event_type, match=match or {}, parameters=parameters or {}, newest_only=newest_only
        )
        connected = client or connect()
        self.register(connected)
        with _calling(connected):
            connected.orchestrator.SetTrigger(
                service.SetTriggerRequest(command_id=str(uuid4()), pipeline=self.name, trigger=trigger)
            )


class _calling:  # noqa: N801 - reads as the statement it is
    """A client whose grpc errors become HeadraceErrors, and that stays open."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> Client:
        return self._client

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, grpc.RpcError):
            raise from_rpc_error(error) from error
