"""The platform that an import writes to: commands whose ids follow from what they say, so that repeats are harmless."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import grpc
from google.protobuf.message import Message

from headrace.api.registry.v1 import resources_pb2 as models
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.client import Client
from headrace.errors import (
    AlreadyExists,
    FailedPrecondition,
    HeadraceError,
    InvalidArgument,
    from_rpc_error,
    read,
)
from headrace.imports.report import Report
from headrace.naming import experiment_id

SOURCE_TAG: Final = "headrace.imported_from"
"""Where a run, model or version came from."""
GAP_TAG: Final = "headrace.imported_gap"
"""On a version that holds the number of one that was deleted where it comes from."""
BATCH_POINTS: Final = 20_000
_CALL_TIMEOUT_S: Final = 120.0
_REFUSALS: Final = (InvalidArgument, FailedPrecondition)
_COMMANDS: Final = uuid5(NAMESPACE_URL, "headrace:import")

Point = tuple[int, int, float]
"""Step, microseconds since 1970, value."""


class Target:
    """One project of a platform. For many threads.

    Args:
        client: The platform.
        project: Id of the project.
        report: Where it is counted what was added, found and left out.
        dry_run: Count alone: nothing is written.
    """

    def __init__(self, client: Client, project: str, report: Report, *, dry_run: bool) -> None:
        self.client, self.report, self.dry_run = client, report, dry_run
        self.parent = f"projects/{project}"

    def command(self, method: Callable[..., Any], request: Message, *, salt: str = "") -> Any:  # noqa: ANN401 - its response
        """Sends a command under an id made of its content, and of ``salt`` where that says on what it stands.

        Raises:
            HeadraceError: It was refused.
        """
        content = request.SerializeToString(deterministic=True)
        identity = uuid5(_COMMANDS, f"{self.parent} {request.DESCRIPTOR.full_name} {salt} {content.hex()}")
        request.command_id = str(identity)  # type: ignore[attr-defined] # every command has it
        try:
            return method(request, timeout=_CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def run_name(self, identity: object) -> str:
        """Resource name of a run."""
        return f"{self.parent}/runs/{identity}"

    def experiment(self, display_name: str, tags: Mapping[str, str]) -> str:
        """Resource name of the experiment people know by that name; made where there is none.

        Raises:
            InvalidArgument: No experiment can have that name.
        """
        stub = self.client.tracking
        asked = service.GetExperimentRequest(parent=self.parent, display_name=display_name)
        if (found := read(stub.GetExperiment, asked)) is not None:
            self.report.find("experiments")
            return found.experiment.name
        name = f"{self.parent}/experiments/{experiment_id(display_name)}"
        if read(stub.GetExperiment, service.GetExperimentRequest(name=name)) is not None:
            self.report.find("experiments")  # under another name for people by now
            return name
        self.report.add("experiments")
        if not self.dry_run:
            self.command(stub.CreateExperiment, service.CreateExperimentRequest(name=name, display_name=display_name))

        def send(some: dict[str, str]) -> None:
            self.command(stub.UpdateExperiment, service.UpdateExperimentRequest(experiment=name, set=some))

        self._in_parts("tags", f"tag of experiment {display_name!r}", dict(tags), send)
        return name

    def run(self, name: str) -> resources.Run | None:
        """A run as it is here."""
        found = read(self.client.tracking.GetRun, service.GetRunRequest(name=name))
        return None if found is None else found.run

    def start(self, request: service.StartRunRequest) -> resources.Run | None:
        """Starts a run with its tags, ``SOURCE_TAG`` among them; None, and a line in the report, when it is refused."""
        if self.dry_run:
            self.report.add("runs")
            self.report.add("tags", len(request.tags))
            return resources.Run(name=request.name, tags=request.tags, status=resources.RUN_STATUS_RUNNING)
        stub, refused = self.client.tracking, dict[str, str]()
        try:
            try:
                run: resources.Run = self.command(stub.StartRun, request).run
            except InvalidArgument as error:  # a tag, most likely: the others are set without it
                if not error.field.startswith(("tags", "code")):
                    raise
                refused = dict(request.tags)
                request.ClearField("tags")
                request.ClearField("code")
                request.tags[SOURCE_TAG] = refused.pop(SOURCE_TAG)
                run = self.command(stub.StartRun, request).run
        except _REFUSALS as error:
            self.report.leave_out(f"run {_last(request.name)}", str(error))
            return None
        self.report.add("runs")
        self.report.add("tags", len(request.tags))
        self.tags(run, refused)
        return run

    def params(self, run: resources.Run, wanted: Mapping[str, str]) -> None:
        """Logs the parameters that a run has not."""
        new = self._new("params", _last(run.name), run.params, wanted)

        def send(some: dict[str, str]) -> None:
            self.command(self.client.tracking.LogParams, service.LogParamsRequest(run=run.name, params=some))

        self._in_parts("params", f"param of run {_last(run.name)}", new, send)

    def tags(self, run: resources.Run, wanted: Mapping[str, str]) -> None:
        """Sets the tags that a run has not."""
        new = self._new("tags", _last(run.name), run.tags, wanted)

        def send(some: dict[str, str]) -> None:
            request = service.ChangeTagsRequest(run=run.name, set=some)
            self.command(self.client.tracking.ChangeTags, request, salt=str(run.revision))

        self._in_parts("tags", f"tag of run {_last(run.name)}", new, send)

    def points(self, run: resources.Run, key: str, wanted: Sequence[Point]) -> None:
        """Logs the points of a metric that a run has not, in the order of steps and times."""
        missing = list(wanted)
        if key in run.metrics:
            asked = service.GetMetricHistoryRequest(run=run.name, key=key)
            found = read(self.client.tracking.GetMetricHistory, asked)
            if found is not None:
                held = Counter(map(_same, zip(found.steps, found.times_us, found.values, strict=True)))
                missing = [point for point in wanted if not _take(held, _same(point))]
        self.report.find("metric points", len(wanted) - len(missing))
        missing.sort(key=lambda point: point[:2])
        for begin in range(0, len(missing), BATCH_POINTS):
            batch = missing[begin : begin + BATCH_POINTS]
            request = service.LogMetricsRequest(run=run.name)
            for step, time_us, value in batch:
                point = request.points.add(key=key, step=step, value=value)
                point.time.FromMicroseconds(time_us)
            if not self.dry_run:
                try:
                    self.command(self.client.tracking.LogMetrics, request)
                except _REFUSALS as error:
                    self.report.leave_out(f"metric {key!r} of run {_last(run.name)}", str(error))
                    return
            self.report.add("metric points", len(batch))

    def finish(self, run: resources.Run, request: service.FinishRunRequest) -> None:
        """Ends a run that is under way here."""
        if run.status != resources.RUN_STATUS_RUNNING or self.dry_run:
            return
        try:
            self.command(self.client.tracking.FinishRun, request)
        except _REFUSALS as error:
            self.report.leave_out(f"the end of run {_last(run.name)}", str(error))

    def attempt(self, what: str, kind: str, send: Callable[[], object]) -> bool:
        """Does one thing and counts it; a refusal is a line in the report, and False."""
        if not self.dry_run:
            try:
                send()
            except (*_REFUSALS, AlreadyExists) as error:
                self.report.leave_out(what, _reasons(error))
                return False
        if kind:
            self.report.add(kind)
        return True

    def model(self, name: str) -> models.Model | None:
        """A registered model as it is here."""
        found = read(self.client.registry.GetModel, registry.GetModelRequest(name=name))
        return None if found is None or found.model.HasField("delete_time") else found.model

    def hold_numbers(self, model: models.Model, number: int, like: registry.CreateVersionRequest) -> None:
        """Takes the numbers of versions that were deleted where they come from, so that ``number`` is the next one.

        Each is a version ``like`` that one, deleted at once.
        """
        stub = self.client.registry
        left = [each for each in model.versions if GAP_TAG in each.tags and not each.HasField("delete_time")]
        for missing in range(len(model.versions) + 1, number):
            request = registry.CreateVersionRequest.FromString(like.SerializeToString())
            request.ClearField("tags")
            request.description = "Holds the number of a version that was deleted where it comes from."
            request.tags.update({GAP_TAG: str(missing), SOURCE_TAG: like.tags[SOURCE_TAG]})
            made = self.command(stub.CreateVersion, request, salt=str(missing)).version
            model.versions.append(made)
            left.append(made)
        for each in left:
            self.command(stub.DeleteVersion, registry.DeleteVersionRequest(version=each.name))

    def _new(self, kind: str, owner: str, held: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
        for key in (key for key, value in wanted.items() if key in held and held[key] != value):
            self.report.leave_out(f"{kind[:-1]} {key!r} of run {owner}", "has another value here, which stays")
        self.report.find(kind, sum(held.get(key) == value for key, value in wanted.items()))
        return {key: value for key, value in wanted.items() if key not in held}

    def _in_parts(self, kind: str, what: str, values: dict[str, str], send: Callable[[dict[str, str]], None]) -> None:
        """Sends values together; where they are refused, halves of them, until what is at fault is alone."""
        if not values:
            return
        if not self.dry_run:
            try:
                send(values)
            except _REFUSALS as error:
                keys = list(values)
                if len(keys) == 1:
                    self.report.leave_out(f"{what}: {keys[0][:100]!r}", str(error))
                    return
                for half in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
                    self._in_parts(kind, what, {key: values[key] for key in half}, send)
                return
        self.report.add(kind, len(values))


def _reasons(error: HeadraceError) -> str:
    return "; ".join(each.description for each in error.violations) or str(error)


def _same(point: Point) -> tuple[int, int, float | str]:
    """A point, of which one is like another: NaN like NaN."""
    step, time_us, value = point
    return (step, time_us, "NaN" if math.isnan(value) else value)


def _take(held: Counter[tuple[int, int, float | str]], point: tuple[int, int, float | str]) -> bool:
    if held[point] <= 0:
        return False
    held[point] -= 1
    return True


def _last(name: str) -> str:
    return name.rpartition("/")[2]
