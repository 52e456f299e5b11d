"""``headrace monitors``: what is watched, and what was seen."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import typer

from headrace.api.monitor.v1 import resources_pb2 as resources
from headrace.api.monitor.v1 import service_pb2 as service
from headrace.cli.output import (
    Json,
    Project,
    console,
    number,
    print_done,
    print_fields,
    print_json,
    print_table,
    short,
    when,
    words,
)
from headrace.client import connect

app = typer.Typer(help="Monitors: create, show, pause.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="MONITOR", help="Id of the monitor.")]


@app.command("list")
def list_monitors(project: Project = "default", as_json: Json = False) -> None:
    """List monitors."""
    request = service.ListMonitorsRequest(parent=f"projects/{project}", page_size=1000)
    with connect() as client:
        monitors = client.monitor.ListMonitors(request).monitors
    if as_json:
        print_json(list(monitors))
        return
    rows = [
        (
            short(each.name),
            each.endpoint,
            words(resources.TaskKind.Name(each.config.task), "TASK_KIND_"),
            f"{each.config.slot_s} s",
            "paused" if each.paused else "watching",
            when(each.decided_until),
        )
        for each in monitors
    ]
    columns = ("monitor", "endpoint", "task", "slots", "state", "decided until (UTC)")
    print_table("Monitors", columns, rows, empty="No monitors yet: headrace monitors create --help")


@app.command()
def show(
    monitor: Name,
    last: Annotated[int, typer.Option(help="Slots to print.")] = 20,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Show what a monitor counted, slot by slot."""
    name = _name(project, monitor)
    with connect() as client:
        found = client.monitor.GetMonitor(service.GetMonitorRequest(name=name)).monitor
        windows = client.monitor.ListWindows(service.ListWindowsRequest(monitor=name, page_size=10000)).windows
        endpoint = f"projects/{project}/endpoints/{found.endpoint}"
        counts = client.monitor.GetCounts(service.GetCountsRequest(endpoint=endpoint))
    if as_json:
        print_json({"monitor": found, "windows": list(windows), "counts": counts})
        return
    print_fields(
        found.name,
        [
            ("endpoint", found.endpoint),
            ("predictions", number(counts.predictions)),
            ("labels joined", number(counts.labels_joined)),
            ("labels waiting", number(counts.labels_waiting)),
            ("given up: labels without prediction", number(counts.labels_unmatched)),
            ("given up: predictions without label", number(counts.predictions_unlabelled)),
            ("batches lost", number(counts.batches_lost)),
            ("batches repeated", number(counts.batches_repeated)),
            ("decided until", when(found.decided_until)),
        ],
    )
    rows = [
        (
            when(each.start),
            short(each.model_version),
            number(each.predictions),
            number(each.labels),
            number(each.mean_error),
            "decided" if each.closed else "open",
        )
        for each in windows[-last:]
    ]
    console.print()
    print_table("Slots", ("start (UTC)", "version", "predictions", "labels", "mean error", ""), rows, empty="None yet.")


@app.command()
def create(
    monitor: Name,
    endpoint: Annotated[str, typer.Option(help="Id of the endpoint to watch.")],
    model: Annotated[str, typer.Option(help="Id of the model.")] = "",
    prediction: Annotated[str, typer.Option(help="Output column that holds the prediction.")] = "prediction",
    classifier: Annotated[bool, typer.Option(help="The prediction is the probability of the positive class.")] = False,
    slot_s: Annotated[int, typer.Option(help="Length of a slot of event time, seconds.")] = 10,
    retrain: Annotated[bool, typer.Option(help="Ask for a retrain when drift is found.")] = False,
    rollback: Annotated[bool, typer.Option(help="Ask for a rollback of a version that does worse.")] = False,
    budget: Annotated[float, typer.Option(help="False alarms accepted in 30 days of event time.")] = 1.0,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Create a monitor; what is not given takes its default, which the answer shows."""
    config = resources.MonitorConfig(
        task=resources.TASK_KIND_BINARY_CLASSIFICATION if classifier else resources.TASK_KIND_REGRESSION,
        prediction_column=prediction,
        slot_s=slot_s,
        false_alarm_budget=budget,
        drift_action=resources.DRIFT_ACTION_RETRAIN if retrain else resources.DRIFT_ACTION_ALERT,
        roll_back_bad_versions=rollback,
        model=f"projects/{project}/models/{model}" if model else "",
    )
    request = service.CreateMonitorRequest(
        command_id=str(uuid4()), name=_name(project, monitor), endpoint=endpoint, config=config
    )
    with connect() as client:
        created = client.monitor.CreateMonitor(request).monitor
    print_json(created) if as_json else console.print(f"watching {created.endpoint}")


@app.command()
def pause(
    monitor: Name,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why.")] = "",
    resume: Annotated[bool, typer.Option(help="Resume instead.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Pause a monitor (it counts, and decides nothing), or resume it."""
    request = service.PauseMonitorRequest(
        command_id=str(uuid4()), name=_name(project, monitor), paused=not resume, reason=reason
    )
    with connect() as client:
        changed = client.monitor.PauseMonitor(request).monitor
    print_done("paused" if changed.paused else "watching", changed, as_json=as_json)


def _name(project: str, monitor: str) -> str:
    return monitor if monitor.startswith("projects/") else f"projects/{project}/monitors/{monitor}"
