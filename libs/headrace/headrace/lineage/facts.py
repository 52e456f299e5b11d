"""What each resource says of where things came from: pure functions from messages to nodes and edges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.common.v1.resources_pb2 import DatasetVersion
from headrace.api.monitor.v1 import resources_pb2 as monitors
from headrace.api.monitor.v1.service_pb2 import GetCountsResponse
from headrace.api.orchestrator.v1 import resources_pb2 as pipelines
from headrace.api.registry.v1 import resources_pb2 as models
from headrace.api.serving.v1.resources_pb2 import Endpoint
from headrace.api.tracking.v1 import resources_pb2 as runs
from headrace.lineage.graph import Column, Edge, Node, kind_of

MOVES: Final = 20
"""Moves of an alias that are told, the newest."""


@dataclass(slots=True)
class Facts:
    """Nodes by name, and edges, each once and in the order they were told."""

    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    edges: dict[Edge, None] = field(default_factory=dict[Edge, None])

    def node(self, node: Node) -> str:
        """Tells of an entity; returns its name."""
        self.nodes[node.name] = node
        return node.name

    def edge(self, source: str, target: str, relation: str) -> None:
        """Tells that one came of the other; nothing when either is not known by name."""
        if source and target:
            self.edges[Edge(source, target, relation)] = None


def label_of(name: str) -> str:
    """What an entity is called when its name is all that is known."""
    parts = name.split("/")
    match kind_of(name):
        case "dataset":
            return name.split("/", 3)[3].rpartition("@")[0]
        case "version":
            return f"{parts[3]} v{parts[5]}"
        case "approval":
            return f"review {parts[7]} of {parts[3]} v{parts[5]}"
        case "promotion":
            return f"{parts[3]} move {parts[5]}"
        case "predictions":
            return f"predictions of {parts[3]}"
        case _:
            return parts[3]


def of_datasets(facts: Facts, project: str, datasets: Iterable[DatasetVersion], target: str, relation: str) -> None:
    """Datasets that something was made with."""
    for each in datasets:
        name = facts.node(
            Node(
                f"{project}/datasets/{each.name}@{each.digest}",
                "dataset",
                each.name,
                detail=each.description,
                columns=tuple(Column(column.name, column.type) for column in each.columns),
            )
        )
        facts.edge(name, target, f"{relation} ({each.context})" if each.context else relation)


def of_run(facts: Facts, run: runs.Run) -> None:
    """A run: its datasets, the models it took and made, what it is part of and forked from."""
    status = runs.RunStatus.Name(run.status).removeprefix("RUN_STATUS_").lower()
    name = facts.node(
        Node(
            run.name,
            "run",
            run.display_name or label_of(run.name),
            state=status,
            actor=run.actor,
            detail=run.error,
            part_of=run.experiment,
            begin=_moment(run.start_time),
            end=_moment(run.end_time),
        )
    )
    of_datasets(facts, _project(name), run.datasets, name, "read by")
    facts.edge(run.pipeline_run, name, "ran")
    facts.edge(run.parent_run, name, "had the child")
    facts.edge(run.forked_from, name, f"forked at step {run.fork_step}")
    for each in run.model_inputs:
        facts.edge(each.model, name, "read by")
    for each in run.model_outputs:
        facts.edge(name, each.model, "made")


def of_logged_model(facts: Facts, model: runs.LoggedModel) -> None:
    """A logged model and the run that made it."""
    made = Node(model.name, "logged model", model.display_name, actor=model.creator, begin=_moment(model.create_time))
    facts.edge(model.run, facts.node(made), "made")


def of_model(facts: Facts, model: models.Model) -> None:
    """A model: what its versions were made of, who reviewed them, where its aliases went, which endpoints answer."""
    facts.node(Node(model.name, "model", label_of(model.name), actor=model.creator, begin=_moment(model.create_time)))
    reviews: dict[str, str] = {}
    for version in model.versions:
        of_version(facts, version, reviews)
    for alias in model.aliases:
        pointer = facts.node(Node(f"{model.name}@{alias.alias}", "alias", f"{label_of(model.name)}@{alias.alias}"))
        for move in alias.history[-MOVES:]:
            _move(facts, model, move, pointer, reviews)
    for routed in model.routed:
        for number in routed.versions:
            facts.edge(f"{model.name}/versions/{number}", routed.endpoint, "answers")


def of_version(facts: Facts, version: models.Version, reviews: dict[str, str]) -> None:
    """A version; ``reviews`` gets the name of each review by its event."""
    name = facts.node(
        Node(
            version.name,
            "version",
            label_of(version.name),
            state=models.VersionState.Name(version.state).removeprefix("VERSION_STATE_").lower(),
            actor=version.author,
            detail=version.description,
            begin=_moment(version.create_time),
        )
    )
    facts.edge(version.run, name, "registered as")
    facts.edge(version.logged_model, name, "registered as")
    of_datasets(facts, _project(name), version.datasets, name, "trained")
    for nth, review in enumerate(version.approvals, 1):
        word = "approved" if review.approved else "rejected"
        made = Node(
            f"{name}/approvals/{nth}",
            "approval",
            f"{word} by {review.actor}",
            state=word,
            actor=review.actor,
            detail=review.reason,
            begin=_moment(review.time),
        )
        reviews[review.event_id] = facts.node(made)
        facts.edge(name, made.name, word)


def of_endpoint(facts: Facts, endpoint: Endpoint) -> None:
    """An endpoint: the alias it follows, the versions that answer, the predictions it makes."""
    name = facts.node(
        Node(
            endpoint.name,
            "endpoint",
            label_of(endpoint.name),
            actor=endpoint.creator,
            begin=_moment(endpoint.create_time),
        )
    )
    if endpoint.alias:
        facts.edge(f"{endpoint.model}@{endpoint.alias}", name, "followed by")
    for route in endpoint.routes:
        facts.edge(route.version, name, "answers")
    predicted(facts, name)


def predicted(facts: Facts, endpoint: str, counts: GetCountsResponse | None = None) -> str:
    """The predictions of an endpoint; returns their name."""
    told = ""
    if counts is not None:
        told = f"{counts.predictions} counted, {counts.labels_joined} with their label"
    name = f"{endpoint}/predictions"
    node = Node(name, "predictions", label_of(name), detail=told)
    if counts is not None or name not in facts.nodes:
        facts.node(node)
    facts.edge(endpoint, name, "answered with")
    return name


def of_monitor(facts: Facts, monitor: monitors.Monitor) -> None:
    """A monitor and the predictions it watches."""
    name = facts.node(
        Node(
            monitor.name,
            "monitor",
            label_of(monitor.name),
            state="paused" if monitor.paused else "",
            actor=monitor.creator,
            begin=_moment(monitor.create_time),
        )
    )
    endpoint = f"{_project(name)}/endpoints/{monitor.endpoint}"
    facts.edge(predicted(facts, endpoint), name, "watched by")


def of_alert(facts: Facts, alert: monitors.Alert) -> None:
    """An alert and its monitor."""
    name = facts.node(
        Node(
            alert.name,
            "alert",
            monitors.AlertKind.Name(alert.kind).removeprefix("ALERT_KIND_").lower().replace("_", " "),
            detail=alert.summary,
            part_of=alert.monitor,
            begin=_moment(alert.time),
        )
    )
    facts.edge(alert.monitor, name, "raised")


def of_pipeline_run(facts: Facts, run: pipelines.PipelineRun) -> None:
    """A run of a pipeline; its cause is told by events."""
    status = pipelines.PipelineRunStatus.Name(run.status).removeprefix("PIPELINE_RUN_STATUS_").lower()
    facts.node(
        Node(
            run.name,
            "pipeline run",
            f"{run.pipeline.rpartition('/')[2]} {run.name.rpartition('/')[2][:8]}",
            state=status,
            actor=run.actor,
            detail=run.error or run.cause,
            part_of=run.pipeline,
            begin=_moment(run.create_time),
            end=_moment(run.end_time),
        )
    )


def move_name(model: str, move: models.Promotion) -> str:
    """Name of a move of an alias."""
    return f"{model}@{move.alias}/moves/{move.revision}"


def _move(facts: Facts, model: models.Model, move: models.Promotion, pointer: str, reviews: dict[str, str]) -> None:
    word = "rollback" if move.rollback else "promotion"
    override = f"gates overridden: {move.override.reason}" if move.HasField("override") else ""
    name = facts.node(
        Node(
            move_name(model.name, move),
            "promotion",
            f"{word} to {move.alias}",
            state=word,
            actor=move.actor,
            detail=override or move.reason,
            begin=_moment(move.time),
        )
    )
    facts.edge(f"{model.name}/versions/{move.version}", name, "moved by")
    for review in move.approvals:
        facts.edge(reviews.get(review.event_id, ""), name, "allowed")
    facts.edge(name, pointer, "set")


def _project(name: str) -> str:
    return "/".join(name.split("/", 2)[:2])


def _moment(stamp: Timestamp) -> datetime | None:
    return stamp.ToDatetime(tzinfo=UTC) if stamp.seconds or stamp.nanos else None
