"""Lineage for other tools: run events after the specification OpenLineage 2-0-2.

Runs, pipeline runs, moves of aliases, endpoints and monitors are runs of jobs; datasets, versions, aliases, logged
models, predictions and alerts are the datasets that they read and write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from headrace.lineage.graph import Edge, Lineage, Node, rfc3339

PRODUCER: Final = "https://pypi.org/project/headrace"
_SPEC: Final = "https://openlineage.io/spec"
SCHEMA: Final = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
Json = dict[str, object]

_JOBS: Final = {"run", "pipeline run", "promotion", "endpoint", "monitor"}
_ENDS: Final = {
    "finished": "COMPLETE",
    "succeeded": "COMPLETE",
    "promotion": "COMPLETE",
    "rollback": "COMPLETE",
    "failed": "FAIL",
    "killed": "ABORT",
    "cancelled": "ABORT",
}
"""State of an entity -> the event its end is; what is in no such state goes on."""


def openlineage(found: Lineage) -> Iterator[Json]:
    """The events of a lineage, in the order of their times: for each run its start, and its end where it has ended.

    An entity whose begin is not known (it was beyond the depth) has no events.
    """
    nodes = {each.name: each for each in found.nodes}
    events = [event for node in found.nodes if node.kind in _JOBS for event in _events(node, nodes, found.edges)]
    yield from sorted(events, key=lambda each: str(each["eventTime"]))


def _events(node: Node, nodes: Mapping[str, Node], edges: tuple[Edge, ...]) -> Iterator[Json]:
    if node.begin is None:
        return
    before = [nodes[each.source] for each in edges if each.target == node.name and each.source in nodes]
    after = [nodes[each.target] for each in edges if each.source == node.name and each.target in nodes]
    inputs = [_dataset(each) for each in before if each.kind not in _JOBS and each.kind != "approval"]
    outputs = [_dataset(each) for each in after if each.kind not in _JOBS and each.kind != "approval"]
    parent = next((each for each in before if each.kind == "pipeline run" and node.kind == "run"), None)
    end = _ENDS.get(node.state, "")
    yield _event(node, "START", node.begin, inputs, [], parent=parent)
    if end:
        yield _event(node, end, node.end or node.begin, inputs, outputs, parent=parent)
    else:
        yield _event(node, "RUNNING", node.begin, inputs, outputs, parent=parent)


def _event(
    node: Node, kind: str, time: datetime, inputs: list[Json], outputs: list[Json], *, parent: Node | None
) -> Json:
    facets: Json = {}
    if parent is not None:
        job = _job(parent)
        facets["parent"] = _facet(
            "facets/1-0-1/ParentRunFacet.json#/$defs/ParentRunFacet",
            run={"runId": _id(parent)},
            job={"namespace": job["namespace"], "name": job["name"]},
        )
    if kind == "FAIL":
        facets["errorMessage"] = _facet(
            "facets/1-0-0/ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet",
            message=node.detail or "no reason was given",
            programmingLanguage="python",
        )
    return {
        "eventType": kind,
        "eventTime": rfc3339(time),
        "run": {"runId": _id(node), "facets": facets},
        "job": _job(node),
        "inputs": inputs,
        "outputs": outputs,
        "producer": PRODUCER,
        "schemaURL": SCHEMA,
    }


def _job(node: Node) -> Json:
    integration = _facet(
        "facets/2-0-3/JobTypeJobFacet.json#/$defs/JobTypeJobFacet",
        processingType="STREAMING" if node.kind in ("endpoint", "monitor") else "BATCH",
        integration="HEADRACE",
        jobType=node.kind.upper().replace(" ", "_"),
    )
    within = node.part_of or (node.name.partition("/moves/")[0] if node.kind == "promotion" else node.name)
    return {"namespace": _namespace(node), "name": within.split("/", 2)[2], "facets": {"jobType": integration}}


def _dataset(node: Node) -> Json:
    name, version = node.name.split("/", 2)[2], ""
    if node.kind == "dataset":
        name, _, version = name.rpartition("@")
    elif node.kind == "version":
        name, _, version = name.partition("/versions/")
    facets: Json = {}
    if version:
        facets["version"] = _facet(
            "facets/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet", datasetVersion=version
        )
    if node.columns:
        facets["schema"] = _facet(
            "facets/1-1-1/SchemaDatasetFacet.json#/$defs/SchemaDatasetFacet",
            fields=[{"name": each.name, **({"type": each.type} if each.type else {})} for each in node.columns],
        )
    return {"namespace": _namespace(node), "name": name, "facets": facets}


def _facet(schema: str, **values: object) -> Json:
    return {"_producer": PRODUCER, "_schemaURL": f"{_SPEC}/{schema}", **values}


def _namespace(node: Node) -> str:
    return f"headrace://{node.name.split('/', 2)[1]}"


def _id(node: Node) -> str:
    """The entity's own UUID, or one made of its name."""
    try:
        return str(UUID(node.name.rpartition("/")[2]))
    except ValueError:
        return str(uuid5(NAMESPACE_URL, f"headrace://{node.name}"))
