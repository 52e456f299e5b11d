"""A layered graph as boxes and curves with coordinates, for a template to draw as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

WIDTH: Final = 164
HEIGHT: Final = 58
"""Size of a box, pixels."""
_ACROSS: Final = 42
_DOWN: Final = 22
_MARGIN: Final = 6


@dataclass(frozen=True, slots=True)
class Box(Generic[T]):
    """A node: where its upper left corner is, and what it shows."""

    x: int
    y: int
    item: T


@dataclass(frozen=True, slots=True)
class Edge:
    """A curve from a node to one that needs it: SVG path data, and the ids of both."""

    path: str
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Graph(Generic[T]):
    """A drawing of ``width`` by ``height`` pixels."""

    width: int
    height: int
    boxes: Sequence[Box[T]]
    edges: Sequence[Edge]


def draw(layers: Sequence[Sequence[tuple[str, T]]], wants: Mapping[str, Sequence[str]]) -> Graph[T]:
    """Lays layers of ``(id, item)`` out from left to right, each centred.

    Args:
        layers: Nodes by layer; what a node wants stands in an earlier layer.
        wants: Ids of the nodes each node needs; unknown ones are left out.
    """
    tallest = max((len(layer) for layer in layers), default=0)
    height = max(tallest * (HEIGHT + _DOWN) - _DOWN, 0) + 2 * _MARGIN
    places: dict[str, Box[T]] = {}
    for column, layer in enumerate(layers):
        top = (height - len(layer) * (HEIGHT + _DOWN) + _DOWN) // 2
        for row, (name, item) in enumerate(layer):
            places[name] = Box(_MARGIN + column * (WIDTH + _ACROSS), top + row * (HEIGHT + _DOWN), item)
    edges = [
        Edge(_curve(places[source], places[target]), source, target)
        for target, sources in wants.items()
        for source in sources
        if source in places and target in places
    ]
    width = max(len(layers) * (WIDTH + _ACROSS) - _ACROSS, 0) + 2 * _MARGIN
    return Graph(width, height, list(places.values()), edges)


def _curve(source: Box[T], target: Box[T]) -> str:
    x1, y1 = source.x + WIDTH, source.y + HEIGHT // 2
    x2, y2 = target.x - 3, target.y + HEIGHT // 2
    bend = max((x2 - x1) // 2, 20)
    return f"M{x1} {y1} C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
