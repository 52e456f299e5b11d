"""Checks of requests before anything is decided; each raises InvalidArgument with the path of the field."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Final

from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace_kit.errors import InvalidArgument
from headrace_kit.names import EXPERIMENT, PIPELINE_RUN, PROJECT, RUN, NamePattern, require_text
from headrace_kit.rpc import parse_uuid
from headrace_kit.validate import (
    MAX_OBJECT_BYTES,
    require_enum,
    require_object,
    require_range,
    require_sha256,
    require_size,
    require_texts,
    require_time,
    require_time_us,
)
from headrace_tracking.columns import Columns

MAX_POINTS: Final = 100_000
MAX_PACKAGES: Final = 5000
MAX_STEP: Final = (1 << 63) - 1
MAX_CHUNKS: Final = 1000
MAX_CHUNK_BYTES: Final = 65_536
MAX_OUTPUT_BYTES: Final = 2 * 1024 * 1024
ENDS: Final = {
    int(each): resources.RunStatus.Name(each)
    for each in (resources.RUN_STATUS_FINISHED, resources.RUN_STATUS_FAILED, resources.RUN_STATUS_KILLED)
}
MODEL_ENDS: Final = {
    int(each): resources.LoggedModelStatus.Name(each)
    for each in (resources.LOGGED_MODEL_STATUS_READY, resources.LOGGED_MODEL_STATUS_FAILED)
}
LOGGED_MODEL: Final = NamePattern("projects/{project}/loggedModels/{model}")
STREAMS: Final = {int(number): name for name, number in resources.OutputStream.items() if number}
THINNINGS = {int(number): name for name, number in service.Thinning.items() if number}
VIEWS: Final = {int(number): name for name, number in resources.View.items()}
KINDS: Final = {int(number): name for name, number in resources.ArtifactKind.items()}
_METRIC_KEY: Final = re.compile(r"[\w \-./:@=]{1,250}")


def check_run(name: str, *, field: str = "run") -> str:
    """A run's name; returns its project."""
    found = RUN.parse(name, field=field)
    parse_uuid(found["run"], field=field)
    return found["project"]


def check_start(request: service.StartRunRequest) -> None:
    """A run with its experiment, tags, code and environment."""
    project = check_run(request.name, field="name")
    if EXPERIMENT.parse(request.experiment, field="experiment")["project"] != project:
        raise InvalidArgument("the experiment is of another project", field="experiment")
    require_text(request.display_name, field="display_name", least=0, most=250)
    require_texts(request.tags, field="tags", most=1000)
    if request.HasField("start_time"):
        require_time(request.start_time, field="start_time")
    if request.parent_run:
        check_run(request.parent_run, field="parent_run")
    if request.pipeline_run:
        PIPELINE_RUN.parse(request.pipeline_run, field="pipeline_run")
    require_text(request.group, field="group", least=0, most=250)
    require_range(request.fork_step, field="fork_step", least=0, most=MAX_STEP if request.forked_from else 0)
    if request.forked_from and check_run(request.forked_from, field="forked_from") != project:
        raise InvalidArgument("the run to fork is of another project", field="forked_from")
    _check_code(request.code)
    _check_environment(request.environment)


def check_finish(request: service.FinishRunRequest) -> None:
    """The end of a run."""
    check_run(request.run)
    require_enum(request.status, field="status", names=ENDS)
    if request.HasField("end_time"):
        require_time(request.end_time, field="end_time")
    require_text(request.error, field="error", least=0, most=8000, lines=True)


def check_params(request: service.LogParamsRequest) -> None:
    """Parameters."""
    check_run(request.run)
    require_size(request.params, field="params", least=1, most=2000)
    require_texts(request.params, field="params", most=2000)


def check_output(request: service.LogOutputRequest) -> None:
    """What a run wrote."""
    check_run(request.run)
    require_size(request.chunks, field="chunks", least=1, most=MAX_CHUNKS)
    for index, each in enumerate(request.chunks):
        at = f"chunks[{index}]"
        check_moment_us(each.time_us, field=f"{at}.time_us", least=1)
        require_enum(each.stream, field=f"{at}.stream", names=STREAMS)
        require_size(each.content, field=f"{at}.content", least=1, most=MAX_CHUNK_BYTES)
        require_range(each.left_out_bytes, field=f"{at}.left_out_bytes", least=0, most=MAX_OBJECT_BYTES)
    size = sum(len(each.content) for each in request.chunks)
    require_range(size, field="chunks", least=1, most=MAX_OUTPUT_BYTES)


def check_moment_us(moment_us: int, *, field: str, least: int = 0) -> None:
    """Microseconds since 1970 UTC, up to the year 9999."""
    require_range(moment_us, field=field, least=least, most=253_402_300_799_999_999)


def check_tags(request: service.ChangeTagsRequest) -> None:
    """Tags to set and to remove."""
    check_run(request.run)
    check_tag_changes(request.set, request.removed)


def check_tag_changes(new: Mapping[str, str], removed: Sequence[str]) -> None:
    """Tags to set and to remove, of whatever has tags."""
    require_texts(new, field="set", most=1000)
    require_size(removed, field="removed", most=1000)
    for index, key in enumerate(removed):
        require_text(key, field=f"removed[{index}]", most=250)


def check_links(request: service.LinkModelsRequest) -> None:
    """Logged models of the run's project."""
    project = check_run(request.run)
    for field, links in (("inputs", request.inputs), ("outputs", request.outputs)):
        require_size(links, field=field, most=1000)
        for index, each in enumerate(links):
            check_logged_model(each.model, project=project, field=f"{field}[{index}].model")


def check_experiment(request: service.CreateExperimentRequest) -> None:
    """An experiment with its name for people and its tags."""
    EXPERIMENT.parse(request.name, field="name")
    require_text(request.display_name, field="display_name", least=0, most=500)
    require_texts(request.tags, field="tags", most=1000)


def check_experiment_update(request: service.UpdateExperimentRequest) -> None:
    """Changes of an experiment."""
    EXPERIMENT.parse(request.experiment, field="experiment")
    require_text(request.display_name, field="display_name", least=0, most=500)
    check_tag_changes(request.set, request.removed)


def check_logged_model(name: str, *, project: str = "", field: str = "model") -> str:
    """A logged model's name, in the project where one is given; returns its project."""
    found = LOGGED_MODEL.parse(name, field=field)["project"]
    if project and found != project:
        raise InvalidArgument("the logged model is of another project", field=field)
    return found


def check_new_model(request: service.CreateLoggedModelRequest) -> None:
    """A logged model with its experiment, run, parameters and tags."""
    project = check_logged_model(request.name, field="name")
    if EXPERIMENT.parse(request.experiment, field="experiment")["project"] != project:
        raise InvalidArgument("the experiment is of another project", field="experiment")
    if request.run and check_run(request.run) != project:
        raise InvalidArgument("the run is of another project", field="run")
    require_text(request.display_name, field="display_name", most=500)
    require_text(request.model_type, field="model_type", least=0, most=500)
    require_texts(request.params, field="params", most=2000)
    require_texts(request.tags, field="tags", most=1000)


def check_annotation(request: service.AnnotateLoggedModelRequest) -> None:
    """Parameters, tags and metrics of a logged model."""
    project = check_logged_model(request.model)
    require_texts(request.params, field="params", most=2000)
    check_tag_changes(request.set, request.removed)
    require_size(request.metrics, field="metrics", most=1000)
    for index, each in enumerate(request.metrics):
        at = f"metrics[{index}]"
        require_metric_key(each.key, field=f"{at}.key")
        require_time(each.time, field=f"{at}.time")
        if each.run and check_run(each.run, field=f"{at}.run") != project:
            raise InvalidArgument("the run is of another project", field=f"{at}.run")
        require_text(each.dataset_name, field=f"{at}.dataset_name", least=0, most=250)
        require_text(each.dataset_digest, field=f"{at}.dataset_digest", least=0, most=200)


def check_finished_model(request: service.FinishLoggedModelRequest) -> None:
    """The end of a logged model."""
    check_logged_model(request.model)
    require_enum(request.status, field="status", names=MODEL_ENDS)


def check_artifact(artifact: resources.Artifact, *, project: str) -> None:
    """A file: a path inside of its run or model, and bytes of its project."""
    require_text(artifact.path, field="artifact.path", most=500)
    parts = artifact.path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in artifact.path:
        raise InvalidArgument("give a relative path without . or .. or empty parts", field="artifact.path")
    require_enum(artifact.kind, field="artifact.kind", names=KINDS)
    require_object(artifact.object, project=project, field="artifact.object")


def check_presign(request: service.PresignUploadRequest) -> str:
    """Bytes to be uploaded; returns the project."""
    require_sha256(request.sha256, field="sha256")
    require_range(request.size_bytes, field="size_bytes", least=0, most=MAX_OBJECT_BYTES)
    require_text(request.media_type, field="media_type", least=0, most=200)
    return PROJECT.parse(request.parent, field="parent")["project"]


def check_begin_upload(request: service.BeginUploadRequest) -> str:
    """Large bytes to be uploaded in parts; returns the project."""
    require_sha256(request.sha256, field="sha256")
    require_range(request.size_bytes, field="size_bytes", least=1, most=MAX_OBJECT_BYTES)
    require_text(request.media_type, field="media_type", least=0, most=200)
    require_text(request.upload_id, field="upload_id", least=0, most=1000)
    return PROJECT.parse(request.parent, field="parent")["project"]


def check_complete_upload(request: service.CompleteUploadRequest) -> str:
    """An upload whose parts are there; returns the project."""
    require_sha256(request.sha256, field="sha256")
    require_range(request.size_bytes, field="size_bytes", least=1, most=MAX_OBJECT_BYTES)
    require_text(request.upload_id, field="upload_id", most=1000)
    return PROJECT.parse(request.parent, field="parent")["project"]


def check_abort_upload(request: service.AbortUploadRequest) -> str:
    """An upload to be thrown away; returns the project."""
    require_sha256(request.sha256, field="sha256")
    require_text(request.upload_id, field="upload_id", most=1000)
    return PROJECT.parse(request.parent, field="parent")["project"]


def check_thinning(thinning: int) -> None:
    """How points are thinned: known, or not given."""
    if thinning:
        require_enum(thinning, field="thinning", names=THINNINGS)


def metric_points(request: service.LogMetricsRequest | service.StreamMetricsRequest) -> list[Columns]:
    """Points as they are stored, first those given one by one; those without a time get the time it is."""
    size = len(request.points) + sum(len(each.values) for each in request.series)
    if not 1 <= size <= MAX_POINTS:
        field = "series" if request.series else "points"
        raise InvalidArgument(f"give 1 to {MAX_POINTS} points; these are {size}", field=field)
    require_size(request.series, field="series", most=MAX_POINTS)
    now_us = time.time_ns() // 1000
    found: dict[str, Columns] = {}
    for index, point in enumerate(request.points):
        columns = found.get(point.key)
        if columns is None:
            require_metric_key(point.key, field=f"points[{index}].key")
            columns = found[point.key] = Columns(point.key)
        time_us = now_us
        if point.HasField("time"):
            require_time(point.time, field=f"points[{index}].time")
            time_us = point.time.ToMicroseconds()
        columns.places.append(index)
        columns.steps.append(point.step)
        columns.times_us.append(time_us)
        columns.values.append(point.value)
    place = len(request.points)
    for index, series in enumerate(request.series):
        columns = _columns(series, place, now_us, field=f"series[{index}]")
        place += len(columns)
        if columns.key in found:
            found[columns.key].extend(columns)
        else:
            found[columns.key] = columns
    return list(found.values())


def _columns(series: resources.PointSeries, place: int, now_us: int, *, field: str) -> Columns:
    require_metric_key(series.key, field=f"{field}.key")
    size = len(series.values)
    require_size(series.values, field=f"{field}.values", least=1, most=MAX_POINTS)
    if len(series.steps) != size:
        raise InvalidArgument(f"{len(series.steps)} steps of {size} values", field=f"{field}.steps")
    if len(series.times_us) not in {0, size}:
        raise InvalidArgument(f"{len(series.times_us)} times of {size} values", field=f"{field}.times_us")
    times_us = list(series.times_us) or [now_us] * size
    for time_us in (min(times_us), max(times_us)):
        require_time_us(time_us, field=f"{field}.times_us")
    return Columns(series.key, list(range(place, place + size)), list(series.steps), times_us, list(series.values))


def require_metric_key(key: str, *, field: str) -> None:
    """A key that a metric may have."""
    if not _METRIC_KEY.fullmatch(key):
        allowed = "1 to 250 characters of letters, digits, space and _ - . / : @ ="
        raise InvalidArgument(f"a metric's key is {allowed}", field=field)


def _check_code(code: resources.CodeVersion) -> None:
    require_text(code.commit, field="code.commit", least=0, most=100)
    require_text(code.branch, field="code.branch", least=0, most=500)
    require_text(code.remote, field="code.remote", least=0, most=2000)
    require_text(code.command_line, field="code.command_line", least=0, most=8000, lines=True)
    for name in ("entrypoint", "root", "working_folder"):
        require_text(getattr(code, name), field=f"code.{name}", least=0, most=2000)


def _check_environment(environment: resources.Environment) -> None:
    for name in ("python", "platform", "host", "cpu"):
        require_text(getattr(environment, name), field=f"environment.{name}", least=0, most=500)
    if environment.packages_digest:
        require_sha256(environment.packages_digest, field="environment.packages_digest")
    require_size(environment.gpus, field="environment.gpus", most=64)
    for index, gpu in enumerate(environment.gpus):
        require_text(gpu, field=f"environment.gpus[{index}]", most=500)
    require_size(environment.packages, field="environment.packages", most=MAX_PACKAGES)
    for index, package in enumerate(environment.packages):
        require_text(package.name, field=f"environment.packages[{index}].name", most=250)
        require_text(package.version, field=f"environment.packages[{index}].version", least=0, most=250)
        require_text(package.source, field=f"environment.packages[{index}].source", least=0, most=2000)
