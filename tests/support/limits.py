"""The limits that comments of the protos state, one line each, by method and path of the field."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from headrace.api.common.v1 import resources_pb2 as common
from headrace.api.common.v1 import telemetry_pb2 as telemetry
from headrace.api.monitor.v1 import service_pb2 as monitor
from headrace.api.orchestrator.v1 import resources_pb2 as pipelines
from headrace.api.registry.v1 import resources_pb2 as models
from headrace.api.serving.v1 import resources_pb2 as serving
from headrace.api.tracking.v1 import resources_pb2 as runs
from headrace.kafka.batches import EARLIEST_US, LATEST_US
from headrace_registry.webhooks import ABOUT_MODELS

_HEAD: Final = "headrace.api"
_RUN: Final = f"{_HEAD}.tracking.v1.TrackingService"
_MODEL: Final = f"{_HEAD}.registry.v1.RegistryService"
_HOOK: Final = f"{_HEAD}.registry.v1.WebhookService"
_SIGN: Final = f"{_HEAD}.registry.v1.SigningService"
_PERSON: Final = f"{_HEAD}.registry.v1.PersonService"
_PIPE: Final = f"{_HEAD}.orchestrator.v1.OrchestratorService"
_WORK: Final = f"{_HEAD}.orchestrator.v1.WorkerService.Work"
_SERVE: Final = f"{_HEAD}.serving.v1.ServingService"
_WATCH: Final = f"{_HEAD}.monitor.v1.MonitorService"
_TAKE: Final = f"{_HEAD}.monitor.v1.TelemetryService"
_ARCHIVE: Final = f"{_HEAD}.monitor.v1.ArchiveService"
_LOG: Final = f"{_HEAD}.audit.v1.AuditService"


@dataclass(frozen=True, slots=True)
class Limit:
    """``field`` of the request of ``method`` may be ``good`` and may not be ``bad``."""

    method: str
    field: str
    good: object
    bad: object

    def __str__(self) -> str:
        return f"{self.method.rpartition('.')[2]}-{self.field}-{_size(self.bad)}"


def _size(value: object) -> str:
    return str(len(value)) if isinstance(value, str | bytes | list | dict) else str(value)


def _text(method: str, field: str, most: int, *, least: int = 0) -> Iterator[Limit]:
    yield Limit(method, field, "x" * most, "x" * (most + 1))
    if least:
        yield Limit(method, field, "x" * least, "x" * (least - 1))


def _map(method: str, field: str, most: int, *, key: int = 250, value: int = 8000) -> Iterator[Limit]:
    yield Limit(method, field, {f"k{each}": "v" for each in range(most)}, {f"k{each}": "v" for each in range(most + 1)})
    yield Limit(method, field, {"k" * key: "v"}, {"k" * (key + 1): "v"})
    yield Limit(method, field, {"k": "v" * value}, {"k": "v" * (value + 1)})
    yield Limit(method, field, {"k": ""}, {"": "v"})


def _series(size: int) -> runs.PointSeries:
    return runs.PointSeries(key="loss", steps=range(size), times_us=range(size), values=[0.5] * size)


def _number(method: str, field: str, least: float, most: float, step: float = 1) -> Iterator[Limit]:
    yield Limit(method, field, most, most + step)
    yield Limit(method, field, least, least - step)


def _pages(method: str, most: int = 1000) -> Iterator[Limit]:
    yield from _number(method, "page_size", 0, most)


def _name(method: str, field: str, kind: str, most: int = 100) -> Iterator[Limit]:
    head = f"projects/default/{kind}/"
    yield Limit(method, field, head + "x" * most, head + "x" * (most + 1))
    yield Limit(method, field, head + "x", head)


def _mask(method: str, path: str, field: str = "read_mask") -> Iterator[Limit]:
    yield Limit(method, f"{field}.paths", [path] * 100, [path] * 101)


def _media_type(method: str, field: str) -> Iterator[Limit]:
    yield from _text(method, f"{field}.media_type", 200)


def _dataset(method: str, field: str) -> Iterator[Limit]:
    yield from _text(method, f"{field}.name", 250, least=1)
    yield from _text(method, f"{field}.digest", 200, least=1)
    yield from _text(method, f"{field}.source", 65_535)
    yield from _text(method, f"{field}.source_type", 100)
    yield from _text(method, f"{field}.schema", 1_000_000)
    yield from _text(method, f"{field}.profile", 1_000_000)
    yield from _text(method, f"{field}.context", 100)
    yield from _text(method, f"{field}.description", 2000)
    yield from _text(method, f"{field}.columns.name", 250, least=1)
    yield from _text(method, f"{field}.columns.type", 100)
    columns = [common.DatasetColumn(name="c", type="int64")] * 4097
    yield Limit(method, f"{field}.columns", columns[:4096], columns)


def _tensors(method: str, field: str) -> Iterator[Limit]:
    tensors = [common.TensorSpec(name=f"t{each}", datatype=common.DATA_TYPE_FP32) for each in range(1025)]
    yield Limit(method, field, tensors[:1024], tensors)
    yield Limit(method, field, tensors[:1], [])
    yield from _text(method, f"{field}.name", 250, least=1)
    yield Limit(method, f"{field}.shape", [1] * 8, [1] * 9)
    yield Limit(method, f"{field}.shape", [-1], [-2])
    yield Limit(method, f"{field}.columns", ["c"] * 4096, ["c"] * 4097)


def _numbers(method: str, field: str = "metrics") -> Iterator[Limit]:
    numbers = [common.NamedValue(name=f"n{each}", value=1.0) for each in range(1001)]
    yield Limit(method, field, numbers[:1000], numbers)
    yield from _text(method, f"{field}.name", 250, least=1)
    yield Limit(method, f"{field}.value", 1e308, float("nan"))
    yield Limit(method, f"{field}.value", -1e308, float("-inf"))


def _times(*values: int) -> bytes:
    return b"".join(each.to_bytes(8, "little", signed=True) for each in values)


def _all() -> Iterator[Limit]:
    yield from _starting()
    yield from _tracking()
    yield from _output()
    yield from _registry()
    yield from _orchestrator()
    yield from _serving()
    yield from _monitor()
    yield from _archive()
    yield from _signing()
    yield from _persons()
    yield from _webhooks()
    yield from _pages(f"{_LOG}.ReadLog")
    yield from _pages(f"{_LOG}.ReadStream")
    for method in ("ListParked", "ListEffects", "ListStates", "ListCheckpoints"):
        yield from _pages(f"{_LOG}.{method}")
    yield Limit(f"{_LOG}.ListEffects", "event_ids", [str(UUID(int=1))] * 100, [str(UUID(int=1))] * 101)
    yield Limit(f"{_LOG}.ListEffects", "event_ids", [str(UUID(int=1))], [])
    yield from _text(f"{_LOG}.ListStates", "stream_id", 500, least=1)
    yield from _text(f"{_LOG}.ReadLog", "stream_prefix", 500)
    yield from _text(f"{_LOG}.FollowLog", "stream_prefix", 500)
    yield Limit(f"{_LOG}.ReadLog", "types", ["t"] * 100, ["t"] * 101)
    yield Limit(f"{_LOG}.FollowLog", "types", ["t"] * 100, ["t"] * 101)
    yield Limit(f"{_LOG}.FollowLog", "from_position", -1, -2)
    yield from _text(f"{_LOG}.ReadStream", "stream_id", 500, least=1)
    yield from _text(f"{_LOG}.StateAt", "stream_id", 500, least=1)
    yield Limit(f"{_LOG}.StateAt", "position", 1, 1 << 60)
    yield Limit(f"{_LOG}.StateAt", "position", 1, -1)


def _chunk(time_us: int, size: int = 1) -> runs.OutputChunk:
    return runs.OutputChunk(time_us=time_us, stream=runs.OUTPUT_STREAM_STDOUT, content=b"x" * size)


def _starting() -> Iterator[Limit]:
    start = f"{_RUN}.StartRun"
    yield Limit(start, "experiment", None, "projects/default/experiments/" + "x" * 251)
    yield from _text(start, "display_name", 250)
    yield from _text(start, "group", 250)
    yield Limit(start, "fork_step", 0, -1)
    packages = [runs.Package(name="p", version="1")] * 5001
    yield Limit(start, "environment.packages", packages[:5000], packages)
    yield from _map(start, "tags", 1000)
    yield from _text(start, "code.remote", 2000)
    yield from _text(start, "code.command_line", 8000)
    for name in ("entrypoint", "root", "working_folder"):
        yield from _text(start, f"code.{name}", 2000)
    yield from _text(start, "environment.packages.source", 2000)
    yield Limit(start, "environment.gpus", ["g"] * 64, ["g"] * 65)
    yield Limit(start, "environment.packages_digest", "ab" * 32, "ab" * 31)


def _output() -> Iterator[Limit]:
    output = f"{_RUN}.LogOutput"
    chunks = [_chunk(each) for each in range(1, 1002)]
    yield Limit(output, "chunks", chunks[:1000], chunks)
    yield Limit(output, "chunks", chunks[:1], [])
    large = [_chunk(each, 65_536) for each in range(1, 34)]
    yield Limit(output, "chunks", large[:32], large)
    yield Limit(output, "chunks.content", b"x" * 65_536, b"x" * 65_537)
    yield Limit(output, "chunks.content", b"x", b"")
    yield Limit(output, "chunks.left_out_bytes", 0, -1)
    yield Limit(output, "chunks.time_us", 1, 0)
    yield from _number(f"{_RUN}.PurgeRuns", "limit", 0, 100)
    yield from _number(f"{_RUN}.ReadOutput", "last_bytes", 0, 16 * 1024 * 1024)


def _tracking() -> Iterator[Limit]:
    dataset = f"{_RUN}.LogDataset"
    yield Limit(f"{_RUN}.FinishRun", "error", "x" * 8000, "x" * 8001)
    yield from _map(f"{_RUN}.LogParams", "params", 2000)
    yield Limit(f"{_RUN}.LogParams", "params", {"depth": "3"}, {})
    yield from _map(f"{_RUN}.ChangeTags", "set", 1000)
    yield Limit(f"{_RUN}.ChangeTags", "removed", ["k"] * 1000, ["k"] * 1001)
    for method in (f"{_RUN}.LogMetrics", f"{_RUN}.StreamMetrics"):
        yield from _text(method, "points.key", 250, least=1)
        yield Limit(method, "points.key", "a b_-./:@=9", "a,b")
        points = [runs.MetricPoint(key="loss", value=0.5, step=1)] * 100_001
        yield Limit(method, "points", points[:100_000], points)
        yield Limit(method, "points", points[:1], [])
        for wrong in (
            _series(100_000),  # with the point beside it one too many
            runs.PointSeries(key="a,b", steps=[1], values=[0.5]),
            runs.PointSeries(key="loss", steps=[1, 2], values=[0.5]),
            runs.PointSeries(key="loss", steps=[1], times_us=[1, 2], values=[0.5]),
            runs.PointSeries(key="loss", steps=[1], times_us=[1 << 62], values=[0.5]),
            runs.PointSeries(key="loss"),
        ):
            yield Limit(method, "series", [_series(99_999)], [wrong])
    yield from _dataset(dataset, "dataset")
    yield from _media_type(f"{_RUN}.LogArtifact", "artifact.object")
    yield Limit(f"{_RUN}.LogArtifact", "artifact.path", "x" * 500, "x" * 501)
    yield Limit(f"{_RUN}.LogArtifact", "artifact.path", "a..b/c", "a/../c")
    yield from _uploads()
    yield Limit(f"{_RUN}.SearchRuns", "filter", _padded("metric.a < 1", 4000), _padded("metric.a < 1", 4001))
    yield Limit(f"{_RUN}.SearchRuns", "order_by", _padded("start_time", 1000), _padded("start_time", 1001))
    yield Limit(f"{_RUN}.SearchRuns", "order_by", ",".join(["run"] * 8), ",".join(["run"] * 9))
    yield from _pages(f"{_RUN}.SearchRuns")
    yield from _pages(f"{_RUN}.ListExperiments")
    for method in ("GetRun", "SearchRuns", "ListExperiments"):
        yield from _mask(f"{_RUN}.{method}", "name")
    yield from _number(f"{_RUN}.GetMetricHistory", "max_points", 0, 1_000_000)
    yield from _number(f"{_RUN}.SearchRuns", "skip", 0, 10_000_000)
    many = f"{_RUN}.GetMetricHistories"
    name = f"projects/default/runs/{UUID(int=1)}"
    yield Limit(many, "runs", [name] * 1000, [name] * 1001)
    yield Limit(many, "runs", [name], [])
    yield from _number(many, "max_points", 0, 200_000)
    for method in ("GetRunKeys", "GetRunGroups"):
        yield Limit(f"{_RUN}.{method}", "filter", _padded("metric.a < 1", 4000), _padded("metric.a < 1", 4001))
        names = [f"projects/default/experiments/{each}" for each in range(1001)]
        yield Limit(f"{_RUN}.{method}", "experiments", names[:1000], names)
    groups = f"{_RUN}.GetRunGroups"
    yield Limit(groups, "group_by", _padded("tag.a", 300), _padded("tag.a", 301))
    yield Limit(groups, "values", _padded("metric.a", 4000), _padded("metric.a", 4001))
    yield Limit(groups, "values", ", ".join(["metric.a"] * 50), ", ".join(["metric.a"] * 51))
    yield from _text(f"{_RUN}.RenameRun", "display_name", 250, least=1)
    yield from _experiments_and_models()
    yield from _traces()


def _uploads() -> Iterator[Limit]:
    yield Limit(f"{_RUN}.PresignUpload", "size_bytes", 1 << 40, (1 << 40) + 1)
    yield Limit(f"{_RUN}.PresignUpload", "size_bytes", 0, -1)
    yield Limit(f"{_RUN}.PresignUpload", "media_type", "x" * 200, "x" * 201)
    yield Limit(f"{_RUN}.BeginUpload", "size_bytes", 1 << 40, (1 << 40) + 1)
    yield Limit(f"{_RUN}.BeginUpload", "size_bytes", 1, 0)
    yield Limit(f"{_RUN}.BeginUpload", "media_type", "x" * 200, "x" * 201)
    yield Limit(f"{_RUN}.BeginUpload", "upload_id", "x" * 1000, "x" * 1001)
    yield Limit(f"{_RUN}.CompleteUpload", "size_bytes", None, (1 << 40) + 1)
    yield Limit(f"{_RUN}.CompleteUpload", "size_bytes", None, 0)
    for upload in ("CompleteUpload", "AbortUpload"):
        yield Limit(f"{_RUN}.{upload}", "upload_id", "x" * 1000, "x" * 1001)
        yield Limit(f"{_RUN}.{upload}", "upload_id", "x", "")


def _experiments_and_models() -> Iterator[Limit]:
    experiment, change = f"{_RUN}.CreateExperiment", f"{_RUN}.UpdateExperiment"
    yield Limit(experiment, "display_name", "", "x" * 501)
    yield from _map(experiment, "tags", 1000)
    yield Limit(change, "display_name", "", "x" * 501)
    yield from _map(change, "set", 1000)
    yield Limit(change, "removed", ["k"] * 1000, ["k"] * 1001)
    model, annotate = f"{_RUN}.CreateLoggedModel", f"{_RUN}.AnnotateLoggedModel"
    yield from _text(model, "display_name", 500, least=1)
    yield from _text(model, "model_type", 500)
    yield from _map(model, "params", 2000)
    yield from _map(annotate, "set", 1000)
    yield from _text(annotate, "metrics.key", 250, least=1)
    yield from _pages(f"{_RUN}.ListLoggedModels")
    yield from _name(experiment, "name", "experiments", 250)
    yield from _name(model, "name", "loggedModels")
    yield from _map(model, "tags", 1000)
    yield from _map(annotate, "params", 2000)
    yield Limit(annotate, "removed", ["k"] * 1000, ["k"] * 1001)
    yield from _text(f"{_RUN}.GetExperiment", "display_name", 500)
    links = [runs.ModelLink(model=f"projects/default/loggedModels/m{each}") for each in range(1001)]
    for field in ("inputs", "outputs"):
        yield Limit(f"{_RUN}.LinkModels", field, None, links)
    names = [f"projects/default/experiments/e{each}" for each in range(1001)]
    for method in ("ListLoggedModels", "SearchRuns"):
        yield Limit(f"{_RUN}.{method}", "experiments", names[:1000], names)
    yield Limit(f"{_RUN}.LogModelArtifact", "artifact.path", "x" * 500, "x" * 501)
    yield from _media_type(f"{_RUN}.LogModelArtifact", "artifact.object")


def _attributes(method: str, field: str, most: int, value: int) -> Iterator[Limit]:
    """Of a map whose values are JSON."""
    yield Limit(method, field, {f"k{each}": "1" for each in range(most)}, {f"k{each}": "1" for each in range(most + 1)})
    yield Limit(method, field, {"k" * 250: "1"}, {"k" * 251: "1"})
    yield Limit(method, field, {"k": f'"{"v" * (value - 2)}"'}, {"k": f'"{"v" * (value - 1)}"'})
    yield Limit(method, field, {"k": "[1]"}, {"k": "[1"})


def _traces() -> Iterator[Limit]:
    spans, told, change = f"{_RUN}.LogSpans", f"{_RUN}.LogTrace", f"{_RUN}.ChangeTraceTags"
    many = [
        runs.Span(trace_id="ab" * 16, span_id=f"{each:016x}", name="s", start_time_ns=1) for each in range(1, 10_002)
    ]
    yield Limit(spans, "spans", many[:10_000], many)
    yield Limit(spans, "spans", many[:1], [])
    yield from _text(spans, "spans.name", 250, least=1)
    yield from _text(spans, "spans.status_message", 8000)
    yield from _text(spans, "spans.scope", 250)
    yield from _attributes(spans, "spans.attributes", 256, 262_144)
    yield from _attributes(spans, "spans.resource", 128, 8000)
    yield from _attributes(spans, "spans.events.attributes", 128, 65_536)
    yield from _attributes(spans, "spans.links.attributes", 128, 8000)
    yield from _text(spans, "spans.events.name", 250)
    events, link = [runs.SpanEvent(name="e")] * 257, runs.SpanLink(trace_id="ab" * 16, span_id="cd" * 8)
    yield Limit(spans, "spans.events", events[:256], events)
    yield Limit(spans, "spans.links", [link] * 128, [link] * 129)
    large = {f"k{each}": f'"{"v" * 262_142}"' for each in range(4)}
    yield Limit(
        spans,
        "spans",
        None,
        [runs.Span(trace_id="ab" * 16, span_id="cd" * 8, name="s", start_time_ns=1, attributes=large)],
    )
    for field in ("trace_id", "span_id"):
        size = 32 if field == "trace_id" else 16
        yield Limit(spans, f"spans.{field}", "a" * size, "0" * size)
        yield Limit(spans, f"spans.{field}", "a" * size, "A" * size)
    yield Limit(spans, "spans.start_time_ns", 1, 0)
    yield Limit(spans, "spans.end_time_ns", 0, 1)
    yield from _text(told, "display_name", 250)
    yield from _text(told, "client_request_id", 250)
    yield from _text(told, "request_preview", 10_000)
    yield from _text(told, "response_preview", 10_000)
    yield from _number(told, "duration_ns", 0, 31_536_000_000_000_000)
    yield from _map(told, "metadata", 200)
    yield from _map(told, "tags", 200)
    yield from _map(change, "set", 200)
    yield Limit(change, "removed", ["k"] * 200, ["k"] * 201)
    yield from _pages(f"{_RUN}.ListSpans")
    search, delete = f"{_RUN}.SearchTraces", f"{_RUN}.DeleteTraces"
    yield from _pages(search)
    for method in (search, delete):
        yield Limit(method, "filter", _padded("duration_s < 1", 4000), _padded("duration_s < 1", 4001))
    yield Limit(search, "order_by", _padded("start_time", 1000), _padded("start_time", 1001))
    yield Limit(search, "order_by", ",".join(["run"] * 8), ",".join(["run"] * 9))
    names = [f"projects/default/experiments/e{each}" for each in range(1001)]
    yield Limit(search, "experiments", None, names)
    traces = [f"projects/default/traces/{each:032x}" for each in range(1, 1002)]
    yield Limit(delete, "traces", traces[:1000], traces)
    yield from _number(delete, "limit", 0, 1000)


def _registry() -> Iterator[Limit]:
    version, check = f"{_MODEL}.CreateVersion", f"{_MODEL}.RecordValidation"
    yield from _name(f"{_MODEL}.CreateModel", "name", "models", 250)
    yield from _text(f"{_MODEL}.CreateModel", "display_name", 250)
    yield from _text(f"{_MODEL}.GetModel", "display_name", 250)
    yield from _text(f"{_MODEL}.RenameModel", "display_name", 250, least=1)
    yield from _text(f"{_MODEL}.CreateModel", "description", 10_000)
    yield from _map(f"{_MODEL}.CreateModel", "tags", 1000)
    yield from _text(version, "source", 2000)
    yield from _map(version, "tags", 1000)
    for method in ("UpdateModel", "UpdateVersion"):
        yield from _text(f"{_MODEL}.{method}", "description", 10_000)
        yield from _map(f"{_MODEL}.{method}", "set", 1000)
        yield Limit(f"{_MODEL}.{method}", "removed", ["k"] * 1000, ["k"] * 1001)
    yield from _mask(f"{_MODEL}.GetModel", "name")
    yield from _mask(f"{_MODEL}.ListModels", "name")
    yield from _mask(f"{_MODEL}.ListVersions", "name")
    yield from _pages(f"{_MODEL}.ListModels")
    yield from _pages(f"{_MODEL}.ListVersions")
    yield from _text(version, "description", 10_000)
    yield from _tensors(version, "signature.inputs")
    yield from _tensors(version, "signature.outputs")
    yield from _media_type(version, "artifact")
    yield Limit(version, "reference_profile.media_type", None, "x" * 201)
    datasets = [common.DatasetVersion(name="d", digest="sha256:1")] * 101
    yield Limit(version, "datasets", datasets[:100], datasets)
    yield from _dataset(version, "datasets")
    yield from _numbers(version)
    yield from _dataset(check, "dataset")
    yield from _numbers(check)
    yield from _text(check, "check", 250, least=1)
    yield from _text(check, "detail", 2000)
    yield from _replays(check)
    yield from _text(f"{_MODEL}.ReviewVersion", "reason", 2000, least=1)
    many = [f"c{each}" for each in range(101)]
    for method in ("SetGates", "CheckPromotion"):
        yield Limit(f"{_MODEL}.{method}", "gates.required_checks", many[:100], many)
        yield from _gates(f"{_MODEL}.{method}")
    yield from _text(f"{_MODEL}.WriteCard", "card.markdown", 20_000)
    for section in ("intended_use", "limits", "evaluation", "data"):
        yield from _text(f"{_MODEL}.WriteCard", f"card.{section}", 4000)
    yield Limit(f"{_MODEL}.WriteCard", "expected_revision", -1, -2)
    yield from _text(f"{_MODEL}.ConsentToFormat", "reason", 2000, least=1)
    grant = f"{_MODEL}.GrantStandingApproval"
    yield from _text(grant, "standing_approval.id", 100, least=1)
    yield from _text(grant, "standing_approval.reason", 2000, least=1)
    yield Limit(grant, "standing_approval.grantees", ["g"], [])
    yield from _text(f"{_MODEL}.RevokeStandingApproval", "reason", 2000, least=1)
    yield from _text(f"{_MODEL}.PromoteVersion", "reason", 2000)
    yield from _text(f"{_MODEL}.RollBackAlias", "reason", 2000, least=1)
    for method in ("RollBackAlias", "CheckRollback"):
        yield from _number(f"{_MODEL}.{method}", "version", 0, 10_000)
    yield from _text(f"{_MODEL}.ArchiveVersion", "reason", 2000)
    for method in ("PromoteVersion", "RemoveAlias"):
        yield Limit(f"{_MODEL}.{method}", "expected_revision", -1, -2)


def _gates(method: str) -> Iterator[Limit]:
    for field in ("metrics.metric", "champion.metric"):
        yield from _text(method, f"gates.{field}", 250, least=1)
    for field in ("metrics.check", "champion.check"):
        yield from _text(method, f"gates.{field}", 250)
    yield Limit(method, "gates.metrics.threshold", 0.5, math.inf)
    yield Limit(method, "gates.champion.margin", 0.0, -0.1)
    yield Limit(method, "gates.champion.margin", 0.5, math.nan)
    for field in ("max_age_s", "max_run_age_s"):
        yield from _number(method, f"gates.{field}", 0, 3_153_600_000)
    metrics = [models.MetricGate(metric="m", comparison=models.COMPARISON_LESS)] * 101
    yield Limit(method, "gates.metrics", metrics[:100], metrics)
    contests = [models.ChampionGate(metric="m")] * 101
    yield Limit(method, "gates.champion", contests[:100], contests)
    yield from _number(method, "gates.approvals.count", 1, 100)
    yield from _number(method, "gates.replay.requests", 1, 1_000_000)
    yield Limit(method, "gates.replay.most", 0.5, math.inf)
    yield from _number(method, "gates.replay.max_age_s", 0, 3_153_600_000)
    persons = [models.ApprovalGate(count=1)] * 21
    yield Limit(method, "gates.approvals", persons[:20], persons)
    short, long = ([models.ApprovalGate(count=1, role="x" * size)] for size in (250, 251))
    yield Limit(method, "gates.approvals", short, long)


def _replays(method: str) -> Iterator[Limit]:
    yield from _number(method, "replay.champion", 1, 10_000)
    yield from _number(method, "replay.requests", 1, 1_000_000)
    yield Limit(method, "replay.rows", 0, -1)
    yield Limit(method, "replay.errors", 0, -1)
    for field in ("max_difference", "mean_difference"):
        yield Limit(method, f"replay.{field}", 0.5, math.inf)
        yield Limit(method, f"replay.{field}", 0.0, -0.1)
    yield from _number(method, "replay.changed_share", 0, 1, 0.1)
    ranges = [models.ReplayedRange()] * 1001
    yield Limit(method, "replay.ranges", ranges[:1000], ranges)


def _signing() -> Iterator[Limit]:
    for method in ("TrustKey", "WithdrawKey"):
        yield from _text(f"{_SIGN}.{method}", "reason", 2000, least=1)
    yield Limit(f"{_SIGN}.TrustKey", "public_key", None, "x" * 2001)
    yield Limit(f"{_SIGN}.SignVersion", "bundle", None, b"x" * (4 * 1024 * 1024 + 1))


def _webhooks() -> Iterator[Limit]:
    create, change = f"{_HOOK}.CreateWebhook", f"{_HOOK}.UpdateWebhook"
    url = "http://127.0.0.1:9/"
    known = [each.DESCRIPTOR.name for each in ABOUT_MODELS]
    for method in (create, change):
        yield from _text(method, "webhook.display_name", 250, least=1)
        yield from _text(method, "webhook.description", 10_000)
        yield Limit(method, "webhook.url", url + "x" * (2000 - len(url)), url + "x" * (2001 - len(url)))
        yield Limit(method, "webhook.event_types", known, known * 5)
        yield from _text(method, "secret", 250)
    yield Limit(create, "secret", "x" * 8, "x" * 7)
    yield Limit(change, "secret", "", "x" * 7)
    yield from _mask(change, "description", "update_mask")
    yield from _pages(f"{_HOOK}.ListWebhooks")
    yield from _pages(f"{_HOOK}.ListDeliveries")


def _orchestrator() -> Iterator[Limit]:
    register = f"{_PIPE}.RegisterPipeline"
    step = "definition.steps"
    yield Limit(register, "definition.entrypoint", f"m:{'x' * 498}", f"m:{'x' * 499}")
    yield from _text(register, "definition.source_path", 2000)
    yield Limit(register, "definition.source_digest", "ab" * 32, "ab" * 33)
    yield from _text(register, "definition.description", 10_000)
    yield Limit(register, "definition.max_active_runs", 0, -1)
    yield from _text(register, f"{step}.id", 100, least=1)
    yield from _number(register, f"{step}.timeout_s", 0, 604_800)
    yield from _number(register, f"{step}.retry.max_attempts", 0, 100)
    yield from _number(register, f"{step}.retry.backoff_s", 0, 86_400)
    yield from _number(register, f"{step}.retry.max_backoff_s", 0, 86_400)
    yield Limit(register, f"{step}.after", [], ["s"] * 101)
    yield from _name(register, "name", "pipelines")
    steps = [pipelines.StepDefinition(id=f"s{each}", function="m:f") for each in range(1001)]
    yield Limit(register, step, steps[:1000], steps)
    yield Limit(register, step, steps[:1], [])
    given = [pipelines.ParameterDefinition(name=f"p{each}") for each in range(201)]
    yield Limit(register, "definition.parameters", given[:200], given)
    kib = f'"{"é" * (32 * 1024 - 1)}"'
    yield Limit(register, f"{step}.inputs", [_constant(kib)], [_constant(f"{kib} ")])
    items = pipelines.StepInputList(items=[_constant("1")] * 1001)
    few = pipelines.StepInputList(items=items.items[:1000])
    yield Limit(register, f"{step}.inputs", [_listed(few)], [_listed(items)])
    yield from _mask(f"{_PIPE}.ListPipelines", "name")
    yield from _mask(f"{_PIPE}.ListPipelineRuns", "name")
    yield from _number(_WORK, "hello.capacity", 1, 1000)
    yield from _text(_WORK, "results.error", 8000)
    yield Limit(_WORK, "logs.data", b"x" * (256 * 1024), b"x" * (256 * 1024 + 1))
    yield from _pages(f"{_PIPE}.ListPipelines")
    yield from _pages(f"{_PIPE}.ListPipelineRuns")
    yield from _text(f"{_PIPE}.SetSchedule", "schedule.id", 100, least=1)
    yield from _text(f"{_PIPE}.SetTrigger", "trigger.id", 100, least=1)
    paths = {f"p{'x' * each}": "v" for each in range(21)}
    yield Limit(f"{_PIPE}.SetTrigger", "trigger.match", dict(list(paths.items())[:20]), paths)
    yield Limit(f"{_PIPE}.SetTrigger", "trigger.parameters", {"days": "a"}, {f"p{each}": "a" for each in range(51)})
    room = 64 * 1024
    yield Limit(f"{_PIPE}.StartPipelineRun", "parameters", {}, {"days": "1" * (room + 1)})
    yield from _text(f"{_PIPE}.CancelPipelineRun", "reason", 2000)


def _constant(text: str) -> pipelines.StepInput:
    return pipelines.StepInput(argument="a", constant_json=text)


def _listed(items: pipelines.StepInputList) -> pipelines.StepInput:
    return pipelines.StepInput(argument="a", list=items)


def _serving() -> Iterator[Limit]:
    rollout = f"{_SERVE}.StartRollout"
    yield from _name(f"{_SERVE}.CreateEndpoint", "name", "endpoints")
    yield from _pages(f"{_SERVE}.ListEndpoints")
    yield from _mask(f"{_SERVE}.ListEndpoints", "name")
    versions = [f"projects/default/models/m/versions/{each}" for each in range(1, 12)]
    routes = [serving.Route(version=each, weight=10) for each in versions]
    eleven = [serving.Route(version=each, weight=10 if index else 0) for index, each in enumerate(versions)]
    yield Limit(f"{_SERVE}.SetRoutes", "routes", None, eleven)
    yield Limit(f"{_SERVE}.SetRoutes", "routes", None, routes[:9])
    yield Limit(f"{_SERVE}.SetRoutes", "routes.weight", 100, 101)
    yield Limit(f"{_SERVE}.SetRoutes", "routes.weight", 100, -1)
    yield Limit(rollout, "steps", [1, 99], [0, 50])
    yield Limit(rollout, "steps", [98, 99], [99, 100])
    yield Limit(rollout, "steps", list(range(1, 21)), list(range(1, 22)))
    yield Limit(rollout, "maximum_error_rate", 1.0, 1.01)
    yield from _text(f"{_SERVE}.AbortRollout", "reason", 2000, least=1)
    yield from _text(f"{_SERVE}.BlockVersion", "reason", 2000, least=1)
    yield from _text(f"{_SERVE}.UnblockVersion", "reason", 2000, least=1)


def _monitor() -> Iterator[Limit]:
    yield from _name(f"{_WATCH}.CreateMonitor", "name", "monitors")
    for method in (f"{_WATCH}.CreateMonitor", f"{_WATCH}.ConfigureMonitor"):
        yield from _text(method, "config.prediction_column", 250, least=1)
        yield Limit(method, "config.slot_s", 604_800, 604_801)
        yield Limit(method, "config.slot_s", 1, -1)
        for name, most in (
            ("lateness_s", 31_622_400),
            ("minimum_samples", 1_000_000_000),
            ("cooldown_s", 31_622_400),
            ("consecutive_slots", 1000),
        ):
            yield Limit(method, f"config.{name}", most, most + 1)
            yield Limit(method, f"config.{name}", 1, -1)
        yield Limit(method, "config.false_alarm_budget", 1e-9, -1e-9)
        yield Limit(method, "config.false_alarm_budget", 1000.0, 1000.1)
        yield Limit(method, "config.bad_version_factor", 1.01, 1.0)
        yield Limit(method, "config.bad_version_factor", 1000.0, 1000.1)
        features = [f"f{each}" for each in range(4097)]
        yield Limit(method, "config.features", features[:4096], features)
        yield Limit(method, "config.features", ["f" * 250], ["f" * 251])
        yield Limit(method, "config.alias", "x" * 100, "x" * 101)
        yield Limit(method, "config.reference_profile.size_bytes", None, 64 * 1024 * 1024 + 1)
        yield Limit(method, "config.reference_profile.media_type", None, "x" * 201)
    yield from _mask(f"{_WATCH}.ConfigureMonitor", "cooldown_s", "update_mask")
    yield from _mask(f"{_WATCH}.ListMonitors", "name")
    yield from _mask(f"{_WATCH}.ListAlerts", "name")
    yield from _text(f"{_WATCH}.PauseMonitor", "reason", 2000)
    yield from _text(f"{_WATCH}.AcknowledgeAlert", "note", 2000)
    yield from _pages(f"{_WATCH}.ListMonitors")
    yield from _pages(f"{_WATCH}.ListAlerts")
    yield from _pages(f"{_WATCH}.ListWindows", 10_000)
    for method in (f"{_TAKE}.PublishPredictions", f"{_TAKE}.PublishLabels"):
        batch = telemetry.PredictionBatch if method.endswith("Predictions") else telemetry.LabelBatch
        yield Limit(method, "batches", None, [batch()] * 101)
        yield Limit(method, "batches", None, [])
        yield Limit(method, "batches.shard", None, 24)
        yield Limit(method, "batches.times_us", _times(LATEST_US), _times(LATEST_US + 1))
        yield Limit(method, "batches.times_us", _times(EARLIEST_US), _times(EARLIEST_US - 1))
    yield from _text(f"{_TAKE}.PublishLabels", "batches.values.name", 250, least=1)
    yield Limit(f"{_TAKE}.PublishPredictions", "batches.columns.name", None, "x" * 251)
    yield Limit(f"{_TAKE}.PublishPredictions", "batches.columns.role", None, 0)


def _archive() -> Iterator[Limit]:
    ranges, erase = f"{_ARCHIVE}.ListArchivedRanges", f"{_ARCHIVE}.EraseTelemetry"
    yield from _text(ranges, "topic", 250, least=1)
    yield Limit(ranges, "partition", 0, -1)
    yield Limit(ranges, "from_offset", 0, -1)
    yield from _pages(ranges)
    where = [monitor.ColumnValue(column="c", value="1")] * 101
    yield Limit(erase, "where", where[:100], where)
    yield from _text(erase, "where.column", 250, least=1)
    yield from _text(erase, "where.value", 2000)
    yield Limit(erase, "prediction_ids", ["p"] * 10_000, ["p"] * 10_001)
    yield Limit(erase, "prediction_ids", ["p" * 250], ["p" * 251])


def _persons() -> Iterator[Limit]:
    yield from _text(f"{_PERSON}.AddPerson", "display_name", 250, least=1)
    yield from _pages(f"{_PERSON}.ListPersons")


def _padded(text: str, length: int) -> str:
    return text + " " * (length - len(text))


LIMITS: Final = tuple(_all())
"""``None`` for what is good means: as in a valid request."""
