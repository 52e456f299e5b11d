"""Where an entity came from and what came of it, across all services.

    with connect() as client:
        found = lineage(client, "projects/default/models/delays@production", direction="upstream")
        print([(edge.source, edge.relation, edge.target) for edge in found.edges])

Each service tells what it owns; the way between them is walked here. ``openlineage`` writes it for other tools.
"""

from headrace.lineage.graph import DIRECTIONS, Column, Edge, Lineage, Node, kind_of, plain
from headrace.lineage.openlineage import openlineage
from headrace.lineage.walking import Question, Walk, lineage, trace

__all__ = [
    "DIRECTIONS",
    "Column",
    "Edge",
    "Lineage",
    "Node",
    "Question",
    "Walk",
    "kind_of",
    "lineage",
    "openlineage",
    "plain",
    "trace",
]
