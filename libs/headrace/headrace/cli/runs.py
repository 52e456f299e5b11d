"""``headrace runs``: what was trained, how, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import orjson
import typer

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import OUTPUT_STREAM_STDERR, OutputChunk, OutputStream, Run, RunStatus
from headrace.cli.exporting import Output, exporting, print_exported
from headrace.cli.output import (
    Json,
    Project,
    console,
    duration,
    number,
    point_at,
    print_fields,
    print_json,
    print_table,
    short,
    when,
    words,
)
from headrace.client import connect
from headrace.errors import InvalidArgument

app = typer.Typer(
    help="Runs: list, search, show, compare, what they wrote, download, export, put away, purge.", no_args_is_help=True
)


@app.command("list")
def list_runs(
    filter_text: Annotated[
        str, typer.Option("--filter", "-f", help="Such as: metric.rmse < 30 and param.model = 'lightgbm'")
    ] = "",
    order_by: Annotated[str, typer.Option("--order-by", "-o", help="Such as: metric.rmse asc")] = "",
    experiment: Annotated[str, typer.Option(help="Only this experiment.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most runs to print.")] = 20,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List runs, newest first, or by filter and order."""
    request = service.SearchRunsRequest(
        parent=f"projects/{project}", filter=filter_text, order_by=order_by, page_size=limit
    )
    if experiment:
        request.experiment = f"projects/{project}/experiments/{experiment}"
    try:
        with connect() as client:
            runs = client.tracking.SearchRuns(request).runs
    except InvalidArgument as error:
        point_at(error, {"filter": filter_text, "order_by": order_by})
        raise
    if as_json:
        print_json(list(runs))
        return
    keys = sorted({key for run in runs for key in run.metrics})[:4]
    rows = [
        (
            short(run.name),
            short(run.experiment),
            run.display_name,
            _status(run),
            when(run.start_time),
            duration(run.start_time, run.end_time),
            *(number(run.metrics[key].last) if key in run.metrics else "" for key in keys),
        )
        for run in runs
    ]
    columns = ("run", "experiment", "name", "status", "started (UTC)", "took", *keys)
    print_table("Runs", columns, rows, empty="No runs. Record one: with headrace.start_run('first') as run: ...")


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="Id of the run.")], project: Project = "default", as_json: Json = False
) -> None:
    """Show everything a run recorded."""
    with connect() as client:
        found = client.tracking.GetRun(service.GetRunRequest(name=_name(project, run))).run
    if as_json:
        print_json(found)
        return
    code, environment = found.code, found.environment
    print_fields(
        found.display_name,
        [
            ("run", found.name),
            ("experiment", short(found.experiment)),
            ("status", _status(found)),
            ("started", f"{when(found.start_time)} by {found.actor}"),
            ("took", duration(found.start_time, found.end_time)),
            ("group", found.group),
            ("forked from", f"{short(found.forked_from)} at step {found.fork_step}" if found.forked_from else ""),
            ("commit", f"{code.commit}{' + uncommitted changes' if code.dirty else ''}"),
            ("command", code.command_line),
            ("python", f"{environment.python} on {environment.platform}"),
            ("hardware", f"{environment.cpu_count} x {environment.cpu}" if environment.cpu else ""),
            ("packages", f"{len(environment.packages)}, sha256 {environment.packages_digest[:12]}"),
            ("error", found.error),
        ],
    )
    _mapping("Parameters", sorted(found.params.items()))
    _mapping("Metrics", [(key, number(found.metrics[key].last)) for key in sorted(found.metrics)])
    _mapping("Tags", sorted(found.tags.items()))
    _mapping(
        "Datasets", [(each.name, f"{each.digest[:23]}  {each.rows} rows  {each.context}") for each in found.datasets]
    )
    _mapping("Artifacts", [(each.path, f"{each.object.size_bytes} bytes") for each in found.artifacts])


@app.command()
def logs(
    run: Annotated[str, typer.Argument(help="Id of the run.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    last: Annotated[int, typer.Option(min=0, max=16 * 1024 * 1024, help="Only the end: about so many bytes.")] = 0,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Print what a run wrote to its standard streams, each to the same stream here."""
    tell = _tell_json if as_json else _tell
    request = service.ReadOutputRequest(run=_name(project, run), last_bytes=last)
    with connect() as client:
        page = client.tracking.ReadOutput(request)
        tell(page.chunks)
        while not page.end:
            page = client.tracking.ReadOutput(service.ReadOutputRequest(run=request.run, after_us=page.next_after_us))
            tell(page.chunks)
        if follow:
            rest = service.FollowOutputRequest(run=request.run, after_us=page.next_after_us)
            for some in client.tracking.FollowOutput(rest):
                tell(some.chunks)


@app.command()
def delete(
    runs: Annotated[list[str], typer.Argument(help="Ids of the runs.")],
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Put runs away: they are in no list, and can be restored until they are purged."""
    with connect() as client:
        found = [
            client.tracking.DeleteRun(service.DeleteRunRequest(command_id=str(uuid4()), run=_name(project, run))).run
            for run in runs
        ]
    _print_names("put away", found, as_json=as_json)


@app.command()
def restore(
    runs: Annotated[list[str], typer.Argument(help="Ids of the runs.")],
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Bring runs back that were put away."""
    with connect() as client:
        found = [
            client.tracking.RestoreRun(service.RestoreRunRequest(command_id=str(uuid4()), run=_name(project, run))).run
            for run in runs
        ]
    _print_names("restored", found, as_json=as_json)


@app.command()
def purge(
    older_than: Annotated[str, typer.Option(help="Put away at least so long ago: 30d, 12h, 90min.")] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be purged.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Remove runs for good that were put away, and free the bytes of their files that nobody else needs.

    The log keeps its events, and says what was purged, when, and by whom. Ended at any moment, it is just called again.
    """
    request = service.PurgeRunsRequest(parent=f"projects/{project}", validate_only=dry_run)
    request.deleted_before.FromDatetime(datetime.now(UTC) - _age(older_than))
    whole = service.PurgeRunsResponse()
    with connect() as client:
        more = True
        while more:
            request.command_id = str(uuid4())
            answer = client.tracking.PurgeRuns(request)
            whole.runs.extend(answer.runs)
            whole.freed_count += answer.freed_count
            whole.freed_bytes += answer.freed_bytes
            whole.kept_count, whole.more = answer.kept_count, answer.more
            whole.waiting_count, whole.waiting_reason = answer.waiting_count, answer.waiting_reason
            more = answer.more and not dry_run
    if as_json:
        print_json(whole)
        return
    rows = [(short(each.run), each.point_count, each.output_bytes, each.artifact_count) for each in whole.runs]
    title = "Would be purged" if dry_run else "Purged"
    print_table(title, ("run", "points", "output bytes", "files"), rows, empty="No run was put away that long ago.")
    if whole.more:
        console.print("and more")
    if whole.freed_count:
        done = "would be" if dry_run else "were"
        console.print(f"{whole.freed_count} files of {whole.freed_bytes} bytes {done} freed.")
    if whole.kept_count:
        console.print(f"{whole.kept_count} runs stay: others were forked from them.")
    if dry_run and whole.waiting_reason:
        console.print(f"What would be freed is not known: {whole.waiting_reason}")
    if whole.waiting_count:
        console.print(f"{whole.waiting_count} files wait, call again: {whole.waiting_reason}")


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Ids of the runs.")],
    everything: Annotated[bool, typer.Option("--all", help="Equal rows, too.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Show where runs differ: parameters, metrics, data, code."""
    with connect() as client:
        found = [client.tracking.GetRun(service.GetRunRequest(name=_name(project, run))).run for run in runs]
    sides = [_comparable(run) for run in found]
    names = sorted({name for side in sides for name in side})
    rows = [(name, *(side.get(name, "") for side in sides)) for name in names]
    differing = [row for row in rows if everything or len(set(row[1:])) > 1]
    if as_json:
        print_json([dict(zip(("field", *(run.name for run in found)), row, strict=True)) for row in differing])
        return
    print_table("Differences", ("", *(run.display_name for run in found)), differing, empty="The runs do not differ.")


@app.command()
def download(
    run: Annotated[str, typer.Argument(help="Id of the run.")],
    path: Annotated[str, typer.Argument(help="Path of the file within the run.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write; by default its name.")] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Write a file of a run, verified by its digest; a download that broke off is gone on with."""
    from headrace.tracking import download_artifact

    target = output or Path(path.rpartition("/")[2])
    download_artifact(run, path, target, project=project)
    size = target.stat().st_size
    if as_json:
        print_json({"file": str(target), "size_bytes": size})
        return
    console.print(f"{target}: {size} bytes", soft_wrap=True)


@app.command()
def export(
    runs: Annotated[list[str], typer.Argument(help="Ids of the runs.")],
    output: Output,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Write runs with their files and what they stand on to one file, for `headrace import archive`."""
    from headrace.bundles import export_runs

    with connect() as client, exporting() as tell:
        written = export_runs(client, [_name(project, run) for run in runs], output, tell=tell)
    print_exported(written, as_json=as_json)


def _print_names(done: str, runs: list[Run], *, as_json: bool) -> None:
    if as_json:
        print_json(runs)
        return
    for run in runs:
        console.print(f"{done}: {short(run.name)} {run.display_name}")


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})(d|h|min|s)", text)
    if found is None:
        raise InvalidArgument(f"give an age such as 30d, 12h, 90min or 0s, not {text!r}", field="older_than")
    unit = {"d": "days", "h": "hours", "min": "minutes", "s": "seconds"}[found[2]]
    return timedelta(**{unit: int(found[1])})


def _tell(chunks: Iterable[OutputChunk]) -> None:
    for each in chunks:
        if each.left_out_bytes:
            typer.echo(f"... {each.left_out_bytes} bytes left out ...", err=True)
        typer.echo(each.content, nl=False, err=each.stream == OUTPUT_STREAM_STDERR)


def _tell_json(chunks: Iterable[OutputChunk]) -> None:
    """A line for each chunk."""
    for each in chunks:
        told = {
            "time": datetime.fromtimestamp(each.time_us / 1e6, UTC),
            "stream": words(OutputStream.Name(each.stream), "OUTPUT_STREAM_"),
            "text": each.content.decode(errors="replace"),
            "left_out_bytes": each.left_out_bytes,
        }
        typer.echo(orjson.dumps(told).decode())


def _comparable(run: Run) -> dict[str, str]:
    side = {f"param.{key}": value for key, value in run.params.items()}
    side.update({f"metric.{key}": number(summary.last) for key, summary in run.metrics.items()})
    side.update({f"dataset.{each.name}": each.digest[:23] for each in run.datasets})
    side["code.commit"] = run.code.commit
    side["packages"] = run.environment.packages_digest[:12]
    side["status"] = _status(run)
    return side


def _mapping(title: str, pairs: list[tuple[str, str]]) -> None:
    if pairs:
        console.print()
        print_fields(title, pairs)


def _status(run: Run) -> str:
    return words(RunStatus.Name(run.status), "RUN_STATUS_")


def _name(project: str, run: str) -> str:
    return run if run.startswith("projects/") else f"projects/{project}/runs/{run}"
