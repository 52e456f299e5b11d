"""``headrace lineage``: where an entity came from and what came of it."""

from __future__ import annotations

from typing import Annotated

import orjson
import typer
from rich.markup import escape
from rich.tree import Tree

from headrace.cli.output import Json, console, print_json
from headrace.client import connect
from headrace.errors import InvalidArgument
from headrace.lineage import Lineage, Node, openlineage, plain
from headrace.lineage import lineage as find


def lineage(
    entity: Annotated[
        str,
        typer.Argument(
            help="Resource name: of a run, version, model, endpoint, alert, pipeline run; projects/P/models/M@ALIAS; "
            "projects/P/datasets/NAME@DIGEST."
        ),
    ],
    direction: Annotated[str, typer.Option(help="upstream, downstream or both.")] = "both",
    depth: Annotated[int, typer.Option(help="Most steps away.", min=1, max=100)] = 8,
    as_openlineage: Annotated[
        bool, typer.Option("--openlineage", help="Print OpenLineage run events, one JSON object a line.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell where an entity came from and what came of it, across all services."""
    if as_json and as_openlineage:
        raise InvalidArgument("give --json or --openlineage, not both")
    with connect() as client:
        found = find(client, entity, direction=direction, depth=depth)
    if as_openlineage:
        for event in openlineage(found):
            typer.echo(orjson.dumps(event).decode())
        return
    if as_json:
        print_json(plain(found))
        return
    for sign, title in ((-1, "came of"), (1, "led to")):
        if direction in ("both", "upstream" if sign < 0 else "downstream"):
            console.print(_tree(found, sign, title))
    if found.cut:
        console.print("[dim]There is more: --depth says how far.[/dim]")
    for each in found.lacking:
        console.print(f"[yellow]{each} does not answer: its part may be missing[/yellow]")


def _tree(found: Lineage, sign: int, title: str) -> Tree:
    nodes = {each.name: each for each in found.nodes}
    roots = [each.name for each in found.nodes if each.distance == 0]
    tree = Tree(f"[bold]{escape(found.entity)}[/bold] {title}")
    told: set[str] = set()
    waiting = [(tree, root, "") for root in reversed(roots)]
    while waiting:
        branch, name, relation = waiting.pop()
        again = name in told
        told.add(name)
        at = branch if name == found.entity else branch.add(_line(nodes[name], relation, again=again))
        if again:
            continue
        edges = [each for each in found.edges if name == (each.target if sign < 0 else each.source)]
        ends = [(each.source if sign < 0 else each.target, each.relation) for each in edges]
        waiting.extend((at, other, how) for other, how in reversed(ends) if other in nodes)
    return tree


def _line(node: Node, relation: str, *, again: bool) -> str:
    what = f"[cyan]{node.kind}[/cyan] {escape(node.label)}"
    how = f"[dim]{escape(relation)}[/dim] " if relation else ""
    facts = [each for each in (node.state, node.actor and f"by {node.actor}") if each]
    when = f" [dim]{node.begin:%Y-%m-%d %H:%M}[/dim]" if node.begin else ""
    return f"{how}{what}{when} [dim]{escape(', '.join(facts))}{' (above)' if again else ''}[/dim]"
