"""Where a run came from and what came of it, as a graph: inputs, the run, what it made."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import grpc

from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace.api.tracking.v1.resources_pb2 import Run
from headrace.lineage import Node as Entity
from headrace_gateway.pages import label, link
from headrace_gateway.platform import Platform, ServiceMissingError
from headrace_gateway.views.graph import Graph, draw
from headrace_gateway.walks import walked
from headrace_kit.errors import KitError

WITHIN_S: Final = 3.0
"""How long the page waits for what is beside the run."""
WALK_S: Final = 5.0
"""How long a page waits for a whole walk."""
STEPS: Final = 6
NODES: Final = 80
"""How far and how many entities a page shows."""
SHOWN: Final = 12
"""Most nodes of a layer."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node: what it is, what it is called, and its page (empty when it has none)."""

    kind: str
    name: str
    href: str = ""
    here: bool = False


async def lineage(platform: Platform, run: Run) -> Graph[Node]:
    """The graph around a run; what a service that does not answer would tell is left out."""
    versions, children = await asyncio.gather(_versions(platform, run), _children(platform, run))
    before = [
        *(Node("parent run", label(each), link(each)) for each in (run.parent_run,) if each),
        *(
            Node(f"forked from, at step {run.fork_step}", label(each), link(each))
            for each in (run.forked_from,)
            if each
        ),
        *(Node("pipeline run", label(each), link(each)) for each in (run.pipeline_run,) if each),
        *(Node("dataset", each.name) for each in run.datasets),
        *(Node("logged model", label(each.model)) for each in run.model_inputs),
    ]
    after = [
        *(Node("logged model", label(each.model)) for each in run.model_outputs),
        *(Node("version", f"{each.split('/')[3]} v{label(each)}", link(each)) for each in versions),
        *(Node(_kin(each, run), each.display_name or label(each.name), link(each.name)) for each in children),
    ]
    here = Node("run", run.display_name or label(run.name), here=True)
    columns = [before[:SHOWN], [here], after[:SHOWN]]
    layers = [[(f"{place}.{row}", node) for row, node in enumerate(nodes)] for place, nodes in enumerate(columns)]
    wants = {name: [source for source, _ in layers[0]] for name, _ in layers[1]}
    wants |= {name: [layers[1][0][0]] for name, _ in layers[2]}
    shown = [layer for layer in layers if layer]
    return draw(shown, wants)


async def around(platform: Platform, entity: str) -> tuple[Graph[Node] | None, tuple[str, ...]]:
    """The graph of everything an entity came of and led to, and the services that did not answer; None when that fails.

    Columns are steps away from the entity; an edge that leads backwards or past none is left out.
    """
    try:
        found = await asyncio.wait_for(walked(platform.read, entity, depth=STEPS, most=NODES), WALK_S)
    except (grpc.aio.AioRpcError, KitError, TimeoutError):
        return None, ()
    columns: dict[int, list[Entity]] = {}
    for each in found.nodes:
        columns.setdefault(each.distance, []).append(each)
    layers = [[(each.name, _shown(each, entity)) for each in columns[far][:SHOWN]] for far in sorted(columns)]
    place = {each.name: each.distance for each in found.nodes}
    wants: dict[str, list[str]] = {}
    for edge in found.edges:
        if place[edge.source] < place[edge.target]:
            wants.setdefault(edge.target, []).append(edge.source)
    return draw(layers, wants), found.lacking


def _shown(node: Entity, entity: str) -> Node:
    name = node.name.partition("@")[0] if node.kind in ("alias", "promotion") else node.name
    return Node(node.kind, node.label, "" if node.name == entity else link(name), here=node.name == entity)


def _kin(run: Run, of: Run) -> str:
    return f"fork, from step {run.fork_step}" if run.forked_from == of.name else "run"


async def _versions(platform: Platform, run: Run) -> list[str]:
    """Registered versions that this run made."""
    request = registry.ListModelsRequest(parent=platform.parent, page_size=1000)
    request.read_mask.paths.extend(["name", "versions"])
    try:
        found = await platform.read.registry.ListModels(request, timeout=WITHIN_S)
    except (grpc.aio.AioRpcError, ServiceMissingError):
        return []
    return [version.name for model in found.models for version in model.versions if version.run == run.name]


async def _children(platform: Platform, run: Run) -> list[Run]:
    """Runs that were forked from this one, or say that they are part of it; MLflow's clients say so by a tag."""
    identity = run.name.rpartition("/")[2]
    wanted = f"forked_from = '{identity}' or parent = '{identity}' or tag.`mlflow.parentRunId` = '{identity}'"
    request = tracking.SearchRunsRequest(parent=platform.parent, filter=wanted, page_size=SHOWN)
    request.read_mask.paths.extend(["name", "display_name", "forked_from", "fork_step"])
    try:
        found = await platform.read.tracking.SearchRuns(request, timeout=WITHIN_S)
    except grpc.aio.AioRpcError:
        return []
    return list(found.runs)
