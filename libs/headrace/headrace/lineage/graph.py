"""Entities and how one came of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from headrace.errors import InvalidArgument

DIRECTIONS: Final = ("both", "upstream", "downstream")
_KINDS: Final = {
    "runs": "run",
    "pipelineRuns": "pipeline run",
    "loggedModels": "logged model",
    "endpoints": "endpoint",
    "monitors": "monitor",
    "alerts": "alert",
}
_MODELS: Final[Mapping[tuple[object, ...], str]] = {
    (False,): "model",
    (False, "versions"): "version",
    (False, "versions", "approvals"): "approval",
    (True,): "alias",
    (True, "moves"): "promotion",
}
"""Whether the model has an alias, and the words between the numbers after it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a dataset and its type."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Node:
    """An entity.

    Attributes:
        name: Resource name. What has none of its own gets one below what it belongs to:
            ``.../datasets/{name}@{digest}``, ``.../models/{model}@{alias}``, ``.../versions/{number}/approvals/{nth}``,
            ``.../models/{model}@{alias}/moves/{revision}``, ``.../endpoints/{endpoint}/predictions``.
        kind: ``dataset``, ``run``, ``pipeline run``, ``logged model``, ``model``, ``version``, ``approval``,
            ``promotion``, ``alias``, ``endpoint``, ``predictions``, ``monitor``, ``alert``.
        label: What people call it.
        state: Where it is in its life, in a word or two; empty where that means nothing.
        actor: Who made it.
        detail: Why, or what else there is to say, in a sentence.
        part_of: Experiment of a run, pipeline of a pipeline run, monitor of an alert; else empty.
        begin: When it began or was made, UTC.
        end: When it ended, UTC; None while it goes on, and for what has no end.
        columns: Of a dataset.
        distance: Edges between it and the entity asked for; negative upstream.
    """

    name: str
    kind: str
    label: str
    state: str = ""
    actor: str = ""
    detail: str = ""
    part_of: str = ""
    begin: datetime | None = None
    end: datetime | None = None
    columns: tuple[Column, ...] = ()
    distance: int = 0


@dataclass(frozen=True, slots=True)
class Edge:
    """``target`` came of ``source``; ``relation`` says how, read from source to target."""

    source: str
    target: str
    relation: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """What was found.

    Attributes:
        entity: What was asked for.
        nodes: Entities, farthest upstream first.
        edges: Between them.
        cut: Whether there is more: beyond the depth, or beyond the most nodes.
        lacking: Services that did not answer, so that their part is missing.
    """

    entity: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    cut: bool = False
    lacking: tuple[str, ...] = ()


def kind_of(name: str) -> str:
    """The kind of an entity by its name. Raises InvalidArgument when lineage knows none such."""
    parts = name.split("/")
    if len(parts) >= 4 and parts[0] == "projects" and parts[1] and parts[2] == "datasets":
        dataset, _, digest = name.split("/", 3)[3].rpartition("@")  # people's own words, with "/" as they like
        if dataset and digest:
            return "dataset"
    if len(parts) >= 4 and parts[0] == "projects" and parts[1] and all(parts[3:]):
        collection, rest = parts[2], len(parts) - 4
        if collection == "models":
            words, numbers = parts[4::2], parts[5::2]
            found = _MODELS.get(("@" in parts[3], *words)) if all(map(_number, numbers)) else None
            if found and len(words) == len(numbers):
                return found
        if collection == "endpoints" and parts[4:] == ["predictions"]:
            return "predictions"
        if collection in _KINDS and not rest:
            return _KINDS[collection]
    raise InvalidArgument(f"ENTITY: give a name such as projects/default/models/delays@production, not {name[:200]!r}")


def plain(found: Lineage) -> dict[str, object]:
    """A lineage as JSON has it; empty values are left out."""
    nodes = [
        {
            "name": each.name,
            "kind": each.kind,
            "label": each.label,
            "distance": each.distance,
            **{name: value for name in ("state", "actor", "detail", "part_of") if (value := getattr(each, name))},
            **{name: rfc3339(value) for name in ("begin", "end") if (value := getattr(each, name))},
        }
        for each in found.nodes
    ]
    edges = [{"source": each.source, "target": each.target, "relation": each.relation} for each in found.edges]
    return {
        "entity": found.entity,
        "nodes": nodes,
        "edges": edges,
        "cut": found.cut,
        "lacking": list(found.lacking),
    }


def rfc3339(moment: datetime) -> str:
    """A moment in UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < len(text) < 10
