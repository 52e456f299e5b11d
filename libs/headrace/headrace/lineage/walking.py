"""The walk along lineage: which service is asked for what. Plain decisions; whoever drives it does the asking."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, TypeAlias, TypeVar

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from headrace.api.audit.v1 import service_pb2 as audit
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.monitor.v1 import service_pb2 as monitor
from headrace.api.monitor.v1.events_pb2 import RetrainRequested
from headrace.api.orchestrator.v1 import service_pb2 as orchestrator
from headrace.api.registry.v1 import events_pb2 as registry_events
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.serving.v1 import service_pb2 as serving
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace.client import Client
from headrace.connection import SERVICES
from headrace.errors import InvalidArgument, NotFound
from headrace.lineage import facts as told
from headrace.lineage.facts import Facts
from headrace.lineage.graph import DIRECTIONS, Edge, Lineage, Node, kind_of
from headrace.story import decode

DEPTH: Final = 8
MOST: Final = 300
"""Nodes told when nothing else is said."""
SHARE: Final = 20
"""Versions of a model, and alerts of a monitor, that are looked at: the newest."""
AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)
GONE: Final = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
"""Answers of a service that has no such thing, or where a name can not be one."""
RUN: Final = (
    *("name", "display_name", "experiment", "status", "actor", "error", "start_time", "end_time"),
    *("datasets", "pipeline_run", "parent_run", "forked_from", "fork_step", "model_inputs", "model_outputs"),
)
"""Fields of runs that lineage looks at."""

T = TypeVar("T")
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Question:
    """A call: ``method`` of a service, or of its log (``log``), with a request; answered by its response or None."""

    service: str
    method: str
    request: Message
    log: bool = False


Walk: TypeAlias = Generator[Question, Message | None, Lineage]
Asking: TypeAlias = Generator[Question, Message | None, T]


def trace(entity: str, *, direction: str = "both", depth: int = DEPTH, most: int = MOST) -> Walk:
    """Walks from an entity along what it came of and what came of it.

    Args:
        entity: Resource name, as ``Node.name`` says; a model stands for its newest versions.
        direction: ``upstream``, ``downstream`` or ``both``.
        depth: Most edges between the entity and what is told: 1 to 100.
        most: Most nodes.

    Raises:
        InvalidArgument: An argument is none.
        NotFound: There is no such entity.
    """
    kind = kind_of(entity)
    if direction not in DIRECTIONS:
        raise InvalidArgument(f"direction: give one of {', '.join(DIRECTIONS)}")
    if not 1 <= depth <= 100:
        raise InvalidArgument("depth: give 1 to 100")
    asker = _Asker()
    yield from asker.expand(entity)
    if entity not in asker.facts.nodes:
        raise NotFound(f"{kind} {entity} does not exist")
    roots = [entity]
    if kind == "model":
        versions = [each.name for each in asker.facts.nodes.values() if each.kind == "version"]
        roots = versions[-SHARE:] or roots
    distances: dict[str, int] = dict.fromkeys(roots, 0)
    edges: dict[Edge, None] = {}
    cut = False
    for sign in (-1, 1):
        if direction not in ("both", "upstream" if sign < 0 else "downstream"):
            continue
        waiting = deque((root, 0) for root in roots)
        seen = set(roots)
        while waiting:
            name, far = waiting.popleft()
            yield from asker.expand(name)
            for edge in asker.incident(name, sign):
                other = edge.source if sign < 0 else edge.target
                if other not in seen and (far == depth or len(distances) >= most):
                    cut = True
                    continue
                edges[edge] = None
                if other not in seen:
                    seen.add(other)
                    distances.setdefault(other, sign * (far + 1))
                    waiting.append((other, far + 1))
    nodes = [replace(asker.node(name), distance=far) for name, far in distances.items()]
    nodes.sort(key=lambda each: (each.distance, each.kind, each.name))
    return Lineage(entity, tuple(nodes), tuple(edges), cut)


def lineage(client: Client, entity: str, *, direction: str = "both", depth: int = DEPTH, most: int = MOST) -> Lineage:
    """The lineage of an entity, from the services that answer; ``lacking`` names the others. Arguments as of ``trace``.

    Raises:
        InvalidArgument: An argument is none.
        NotFound: There is no such entity.
        grpc.RpcError: A service refuses.
    """
    lacking: dict[str, None] = {}
    walk = trace(entity, direction=direction, depth=depth, most=most)
    answer: Message | None = None
    try:
        question = next(walk)
        while True:
            answer = _answer(client, question, lacking)
            question = walk.send(answer)
    except StopIteration as end:
        found: Lineage = end.value
        return replace(found, lacking=tuple(lacking))
    except NotFound as error:
        raise not_found(error, tuple(lacking)) from None


def not_found(error: NotFound, lacking: Sequence[str]) -> NotFound:
    """The same error, which also names the services that did not answer."""
    return NotFound(f"{error.message} ({', '.join(lacking)} did not answer)") if lacking else error


def _answer(client: Client, question: Question, lacking: dict[str, None]) -> Message | None:
    if question.service not in SERVICES or question.service not in client.connection.addresses:
        lacking[question.service] = None
        return None
    stub: Any = client.log(question.service) if question.log else getattr(client, question.service)
    try:
        found: Message = getattr(stub, question.method)(question.request)
    except grpc.RpcError as error:
        if error.code() in AWAY:
            lacking[question.service] = None
        elif error.code() not in GONE:
            raise
        return None
    return found


class _Asker:
    """Asks each question once, and keeps what was told."""

    def __init__(self) -> None:
        self.facts = Facts()
        self._expanded: set[str] = set()
        self._answers: dict[tuple[str, str, bytes], Message | None] = {}

    def node(self, name: str) -> Node:
        """An entity, by its name alone where nobody told more."""
        return self.facts.nodes.get(name) or Node(name, kind_of(name), told.label_of(name))

    def incident(self, name: str, sign: int) -> list[Edge]:
        """The edges that lead to an entity (upstream, -1) or from it (1)."""
        return [each for each in self.facts.edges if name == (each.target if sign < 0 else each.source)]

    def expand(self, name: str) -> Asking[None]:
        """Learns what there is to learn of an entity."""
        if name in self._expanded:
            return
        self._expanded.add(name)
        parent = "/".join(name.split("/", 2)[:2])
        match kind_of(name):
            case "dataset":
                yield from self._dataset(parent, name)
            case "run":
                yield from self._run(parent, name)
            case "logged model":
                yield from self._logged_model(parent, name)
            case "pipeline run":
                yield from self._pipeline_run(parent, name)
            case "endpoint":
                request = serving.GetEndpointRequest(name=name)
                found = yield from self._ask("serving", "GetEndpoint", request, serving.GetEndpointResponse)
                if found is not None:
                    told.of_endpoint(self.facts, found.endpoint)
            case "predictions":
                yield from self._predictions(parent, name)
            case "monitor":
                yield from self._monitor(parent, name)
            case "alert":
                yield from self._alert(parent, name)
            case _:
                model = name.partition("@")[0].partition("/versions/")[0]
                asked = registry.GetModelRequest(name=model)
                answer = yield from self._ask("registry", "GetModel", asked, registry.GetModelResponse)
                if answer is not None:
                    told.of_model(self.facts, answer.model)
                yield from self._endpoints(parent, model)

    def _endpoints(self, parent: str, model: str) -> Asking[None]:
        """The endpoints of a model."""
        request = serving.ListEndpointsRequest(parent=parent, page_size=1000)
        found = yield from self._ask("serving", "ListEndpoints", request, serving.ListEndpointsResponse)
        for each in found.endpoints if found is not None else ():
            if each.model == model:
                told.of_endpoint(self.facts, each)

    def _dataset(self, parent: str, name: str) -> Asking[None]:
        dataset, _, digest = name.split("/", 3)[3].rpartition("@")
        wanted = f"dataset.name = {_quoted(dataset)} and dataset.digest = {_quoted(digest)}"
        mask = FieldMask(paths=RUN)
        request = tracking.SearchRunsRequest(parent=parent, filter=wanted, page_size=MOST, read_mask=mask)
        found = yield from self._ask("tracking", "SearchRuns", request, tracking.SearchRunsResponse)
        for run in found.runs if found is not None else ():
            told.of_run(self.facts, run)
        yield from self._versions(parent, name)

    def _run(self, parent: str, name: str) -> Asking[None]:
        request = tracking.GetRunRequest(name=name)
        found = yield from self._ask("tracking", "GetRun", request, tracking.GetRunResponse)
        if found is not None:
            told.of_run(self.facts, found.run)
            identity = _quoted(name.rpartition("/")[2])
            mask = FieldMask(paths=RUN)
            wanted = f"forked_from = {identity} or parent = {identity}"
            asked = tracking.SearchRunsRequest(parent=parent, filter=wanted, page_size=MOST, read_mask=mask)
            later = yield from self._ask("tracking", "SearchRuns", asked, tracking.SearchRunsResponse)
            for each in later.runs if later is not None else ():
                told.of_run(self.facts, each)
        yield from self._versions(parent, name)

    def _logged_model(self, parent: str, name: str) -> Asking[None]:
        request = tracking.GetLoggedModelRequest(name=name)
        found = yield from self._ask("tracking", "GetLoggedModel", request, tracking.GetLoggedModelResponse)
        if found is not None:
            told.of_logged_model(self.facts, found.model)
        yield from self._versions(parent, name)

    def _versions(self, parent: str, source: str) -> Asking[None]:
        """Versions that came of a run, a dataset or a logged model."""
        request = registry.ListModelsRequest(
            parent=parent, page_size=1000, read_mask=FieldMask(paths=["name", "versions"])
        )
        while True:
            found = yield from self._ask("registry", "ListModels", request, registry.ListModelsResponse)
            if found is None:
                return
            every = Facts()
            for model in found.models:
                for version in model.versions:
                    told.of_version(every, version, {})
            for edge in every.edges:
                if edge.source == source:
                    self.facts.edges[edge] = None
                    self.facts.nodes.setdefault(edge.target, every.nodes[edge.target])
                    if source in every.nodes:
                        self.facts.nodes.setdefault(source, every.nodes[source])
            request = registry.ListModelsRequest(
                parent=parent, page_size=1000, read_mask=request.read_mask, page_token=found.next_page_token
            )
            if not request.page_token:
                return

    def _pipeline_run(self, parent: str, name: str) -> Asking[None]:
        request = orchestrator.GetPipelineRunRequest(name=name)
        found = yield from self._ask("orchestrator", "GetPipelineRun", request, orchestrator.GetPipelineRunResponse)
        if found is None:
            return
        run = found.run
        told.of_pipeline_run(self.facts, run)
        if run.causation_id:
            cause = yield from self._event("monitor", run.causation_id)
            request_ = decode(cause) if cause is not None else None
            if isinstance(request_, RetrainRequested) and request_.alert:
                self.facts.edge(request_.alert, name, "asked for")
        # Tracking knows no order by pipeline run; the runs of one lie between its begin and its end.
        window = f'start_time >= "{_stamp(run.create_time.ToDatetime())}"'
        if run.HasField("end_time"):
            window += f' and start_time <= "{_stamp(run.end_time.ToDatetime() + timedelta(seconds=1))}"'
        query = tracking.SearchRunsRequest(
            parent=parent, filter=window, order_by="start_time asc", page_size=1000, read_mask=FieldMask(paths=RUN)
        )
        runs = yield from self._ask("tracking", "SearchRuns", query, tracking.SearchRunsResponse)
        for each in runs.runs if runs is not None else ():
            if each.pipeline_run == name:
                told.of_run(self.facts, each)

    def _predictions(self, parent: str, name: str) -> Asking[None]:
        endpoint = name.rpartition("/")[0]
        request = serving.GetEndpointRequest(name=endpoint)
        found = yield from self._ask("serving", "GetEndpoint", request, serving.GetEndpointResponse)
        if found is not None:
            told.of_endpoint(self.facts, found.endpoint)
        counted = yield from self._ask(
            "monitor", "GetCounts", monitor.GetCountsRequest(endpoint=endpoint), monitor.GetCountsResponse
        )
        if counted is not None and (found is not None or counted.predictions):
            told.predicted(self.facts, endpoint, counted)
        listing = monitor.ListMonitorsRequest(parent=parent, page_size=1000)
        monitors = yield from self._ask("monitor", "ListMonitors", listing, monitor.ListMonitorsResponse)
        for each in monitors.monitors if monitors is not None else ():
            if f"{parent}/endpoints/{each.endpoint}" == endpoint:
                told.of_monitor(self.facts, each)

    def _monitor(self, parent: str, name: str) -> Asking[None]:
        request = monitor.GetMonitorRequest(name=name)
        found = yield from self._ask("monitor", "GetMonitor", request, monitor.GetMonitorResponse)
        if found is None:
            return
        told.of_monitor(self.facts, found.monitor)
        alerts = monitor.ListAlertsRequest(parent=parent, monitor=name, page_size=SHARE)
        listed = yield from self._ask("monitor", "ListAlerts", alerts, monitor.ListAlertsResponse)
        for each in listed.alerts if listed is not None else ():
            told.of_alert(self.facts, each)

    def _alert(self, parent: str, name: str) -> Asking[None]:
        request = monitor.ListAlertsRequest(parent=parent, page_size=1000)
        found = yield from self._ask("monitor", "ListAlerts", request, monitor.ListAlertsResponse)
        alert = next((each for each in found.alerts if each.name == name), None) if found is not None else None
        if alert is None:
            return
        told.of_alert(self.facts, alert)
        asked = yield from self._effects("monitor", [alert.event_id])
        ids = [each.event_id for each in asked]
        if not ids:
            return
        for entry in (yield from self._effects("orchestrator", ids)):
            if "/pipelineRuns/" in entry.stream_id:
                self.facts.edge(name, entry.stream_id, "asked for")
        for entry in (yield from self._effects("registry", ids)):
            rolled = decode(entry)
            if isinstance(rolled, registry_events.VersionRolledBack):
                self.facts.edge(name, told.move_name(entry.stream_id, rolled.promotion), "asked for")

    def _event(self, service: str, event_id: str) -> Asking[LogEntry | None]:
        request = audit.GetEventRequest(event_id=event_id)
        found = yield from self._ask(service, "GetEvent", request, audit.GetEventResponse, log=True)
        return None if found is None else found.entry

    def _effects(self, service: str, event_ids: Sequence[str]) -> Asking[list[LogEntry]]:
        request = audit.ListEffectsRequest(event_ids=event_ids, page_size=1000)
        found = yield from self._ask(service, "ListEffects", request, audit.ListEffectsResponse, log=True)
        return [] if found is None else list(found.entries)

    def _ask(
        self, service: str, method: str, request: Message, kind: type[M], *, log: bool = False
    ) -> Asking[M | None]:
        key = (service, method, request.SerializeToString(deterministic=True))
        if key not in self._answers:
            self._answers[key] = yield Question(service, method, request, log)
        answer = self._answers[key]
        return answer if isinstance(answer, kind) else None


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _stamp(moment: Any) -> str:  # noqa: ANN401 - a naive datetime in UTC, as protobuf gives it
    return f"{moment.isoformat(timespec='milliseconds')}Z"
