"""``headrace pipelines``: start, follow, cancel, resume."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import orjson
import typer

from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace.api.orchestrator.v1.resources_pb2 import PipelineRun, PipelineRunStatus, Schedule, StepStatus
from headrace.cli.output import (
    Json,
    Project,
    duration,
    print_done,
    print_json,
    print_table,
    short,
    when,
    words,
)
from headrace.client import connect

app = typer.Typer(help="Pipelines and their runs.", no_args_is_help=True)
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the pipeline run.")]


@app.command("list")
def list_pipelines(project: Project = "default", as_json: Json = False) -> None:
    """List pipelines with their schedules and triggers."""
    request = service.ListPipelinesRequest(parent=f"projects/{project}", page_size=1000)
    with connect() as client:
        pipelines = client.orchestrator.ListPipelines(request).pipelines
    if as_json:
        print_json(list(pipelines))
        return
    rows = [
        (
            short(each.name),
            each.version,
            ", ".join(step.id for step in each.definition.steps),
            ", ".join(f"{one.id}: {one.cron}" for one in each.schedules),
            ", ".join(f"{one.id}: {one.event_type.rpartition('.')[2]}" for one in each.triggers),
        )
        for each in pipelines
    ]
    columns = ("pipeline", "version", "steps", "schedules", "triggers")
    print_table("Pipelines", columns, rows, empty="No pipelines yet: register one from Python, see docs/quickstart.md")


@app.command()
def runs(
    pipeline: Annotated[str, typer.Option(help="Only runs of this pipeline.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    request = service.ListPipelineRunsRequest(parent=f"projects/{project}", page_size=limit)
    if pipeline:
        request.pipeline = f"projects/{project}/pipelines/{pipeline}"
    with connect() as client:
        found = client.orchestrator.ListPipelineRuns(request).runs
    if as_json:
        print_json(list(found))
        return
    rows = [
        (
            short(each.name),
            short(each.pipeline),
            _status(each),
            each.cause,
            when(each.create_time),
            duration(each.create_time, each.end_time),
        )
        for each in found
    ]
    columns = ("run", "pipeline", "status", "started by", "started (UTC)", "took")
    print_table("Pipeline runs", columns, rows, empty="No runs yet: headrace pipelines start --help")


@app.command()
def start(
    pipeline: Annotated[str, typer.Argument(help="Id of the pipeline.")],
    param: Annotated[list[str] | None, typer.Option("--param", "-p", help="NAME=JSON; may be repeated.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the end; exit status 1 when it failed.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Start a run."""
    request = service.StartPipelineRunRequest(
        command_id=str(uuid4()),
        pipeline=f"projects/{project}/pipelines/{pipeline}",
        parameters=dict(_parameter(each) for each in param or ()),
    )
    with connect() as client:
        run = client.orchestrator.StartPipelineRun(request).run
        if wait:
            for response in client.orchestrator.WatchPipelineRun(service.WatchPipelineRunRequest(run=run.name)):
                run = response.run
    _print(run, as_json=as_json)
    if wait and PipelineRunStatus.Name(run.status) != "PIPELINE_RUN_STATUS_SUCCEEDED":
        raise typer.Exit(1)


@app.command()
def show(run: RunId, project: Project = "default", as_json: Json = False) -> None:
    """Show a run, step by step."""
    with connect() as client:
        found = client.orchestrator.GetPipelineRun(service.GetPipelineRunRequest(name=_name(project, run))).run
    _print(found, as_json=as_json)


@app.command()
def logs(
    run: RunId,
    step: Annotated[str, typer.Argument(help="Id of the step.")],
    attempt: Annotated[int, typer.Option(help="Attempt; 0 for the newest.")] = 0,
    project: Project = "default",
) -> None:
    """Print what a step wrote."""
    offset, end = 0, False
    with connect() as client:
        while not end:
            request = service.ReadStepLogsRequest(run=_name(project, run), step=step, attempt=attempt, offset=offset)
            page = client.orchestrator.ReadStepLogs(request)
            typer.echo(page.text, nl=False)
            end = page.end or page.next_offset == offset
            offset = page.next_offset


@app.command()
def cancel(
    run: RunId,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why.")] = "",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Cancel a run: its processes are ended."""
    request = service.CancelPipelineRunRequest(command_id=str(uuid4()), run=_name(project, run), reason=reason)
    with connect() as client:
        _print(client.orchestrator.CancelPipelineRun(request).run, as_json=as_json)


@app.command()
def resume(run: RunId, project: Project = "default", as_json: Json = False) -> None:
    """Go on with a failed or cancelled run from the steps that were not completed."""
    request = service.ResumePipelineRunRequest(command_id=str(uuid4()), run=_name(project, run))
    with connect() as client:
        _print(client.orchestrator.ResumePipelineRun(request).run, as_json=as_json)


@app.command()
def schedule(
    pipeline: Annotated[str, typer.Argument(help="Id of the pipeline.")],
    identity: Annotated[str, typer.Argument(metavar="ID", help="Id of the schedule.")],
    cron: Annotated[str, typer.Argument(help="Five fields, such as '0 6 * * 1'.")],
    time_zone: Annotated[str, typer.Option(help="IANA time zone.")] = "UTC",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Start runs by the clock."""
    wanted = Schedule(id=identity, cron=cron, time_zone=time_zone)
    request = service.SetScheduleRequest(
        command_id=str(uuid4()), pipeline=f"projects/{project}/pipelines/{pipeline}", schedule=wanted
    )
    with connect() as client:
        scheduled = client.orchestrator.SetSchedule(request).pipeline
    print_done(f"{pipeline} starts at {cron} ({time_zone})", scheduled, as_json=as_json)


def _print(run: PipelineRun, *, as_json: bool) -> None:
    if as_json:
        print_json(run)
        return
    rows = [
        (
            step.id,
            words(StepStatus.Name(step.status), "STEP_STATUS_"),
            step.attempt or "",
            duration(step.start_time, step.end_time) if step.start_time.seconds else "",
            step.error.strip().rpartition("\n")[2],
        )
        for step in run.steps
    ]
    columns = ("step", "status", "attempt", "took", "error")
    print_table(f"{run.name}: {_status(run)}", columns, rows, empty="No steps.")


def _parameter(text: str) -> tuple[str, str]:
    """``name=value``: a value that is not JSON is a text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter("give NAME=JSON, such as rounds=3")
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        value = orjson.dumps(value).decode()
    return name, value


def _status(run: PipelineRun) -> str:
    return words(PipelineRunStatus.Name(run.status), "PIPELINE_RUN_STATUS_")


def _name(project: str, run: str) -> str:
    return run if run.startswith("projects/") else f"projects/{project}/pipelineRuns/{run}"
