"""``headrace log rebuild``: the read models of a service, made anew from its log."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from headrace.api.audit.v1 import service_pb2 as audit
from headrace.cli.log_export import progress_bar
from headrace.cli.output import Json, console, print_json, print_table
from headrace.client import Client, connect
from headrace.connection import SERVICES
from headrace.errors import InvalidArgument

_PHASES: Final = {
    int(audit.REBUILD_PHASE_FOLDING): "events",
    int(audit.REBUILD_PHASE_CATCHING_UP): "catching up",
    int(audit.REBUILD_PHASE_COMPARING): "rows compared",
    int(audit.REBUILD_PHASE_SWAPPING): "swapping",
}
_PLACES: Final = {int(audit.ROW_PLACE_LIVE): "should not be there", int(audit.ROW_PLACE_REBUILT): "was missing"}


def rebuild(
    service: Annotated[str, typer.Argument(help="Such as registry.")],
    check: Annotated[bool, typer.Option("--check", help="Only compare; status 1 when anything differs.")] = False,
    as_json: Json = False,
) -> None:
    """Fold every read model of a service anew beside the live ones, compare, and swap them in; nobody has to wait."""
    if service not in SERVICES:
        raise InvalidArgument(f"SERVICE is one of {', '.join(SERVICES)}; not {service!r}")
    with connect() as client:
        report = _report(client, service, check=check)
    if as_json:
        print_json(_plain(report))
    else:
        _print(service, report)
    if check and any(each.differing for each in report.tables):
        raise typer.Exit(1)


def _report(client: Client, service: str, *, check: bool) -> audit.RebuildReport:
    report = audit.RebuildReport()
    with progress_bar() as bar:
        task = bar.add_task("events", total=None)
        for each in client.log(service).RebuildReadModels(audit.RebuildReadModelsRequest(check=check)):
            if each.HasField("report"):
                report = each.report
            now = each.progress
            bar.update(
                task, description=_PHASES.get(now.phase, ""), completed=now.done, total=max(now.total, now.done) or None
            )
    return report


def _print(service: str, report: audit.RebuildReport) -> None:
    rows = [(each.table, each.rows, each.differing, each.sha256.hex()) for each in report.tables]
    print_table(service, ("table", "rows", "differed", "SHA-256"), rows, empty="No table.")
    for table in report.tables:
        for each in table.differences:
            what = _PLACES.get(each.place) or f"differed in {', '.join(each.columns)}"
            console.print(f"{table.table} {each.key} {what}", soft_wrap=True)
    done = "swapped in" if report.swapped else "only compared"
    console.print(f"{report.events} events folded, {done}; appends waited {report.locked_s * 1000:.0f} ms")


def _plain(report: audit.RebuildReport) -> dict[str, object]:
    tables = [
        {
            "table": table.table,
            "rows": table.rows,
            "sha256": table.sha256.hex(),
            "differing": table.differing,
            "differences": list(table.differences),
        }
        for table in report.tables
    ]
    return {"tables": tables, "events": report.events, "swapped": report.swapped, "locked_s": report.locked_s}
