"""``headrace alerts``: what a person should know of."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import typer

from headrace.api.monitor.v1 import service_pb2 as service
from headrace.api.monitor.v1.resources_pb2 import Alert, AlertKind
from headrace.cli.output import Json, Project, console, print_done, print_json, print_table, short, when, words
from headrace.client import connect

app = typer.Typer(help="Alerts: list, follow, acknowledge.", no_args_is_help=True)


@app.command("list")
def list_alerts(
    monitor: Annotated[str, typer.Option(help="Only alerts of this monitor.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List alerts, newest first."""
    request = service.ListAlertsRequest(parent=f"projects/{project}", page_size=limit)
    if monitor:
        request.monitor = f"projects/{project}/monitors/{monitor}"
    with connect() as client:
        alerts = client.monitor.ListAlerts(request).alerts
    if as_json:
        print_json(list(alerts))
        return
    rows = [
        (
            short(each.name),
            _kind(each),
            each.endpoint,
            short(each.model_version),
            each.summary,
            when(each.slot),
            each.acknowledged_by,
        )
        for each in alerts
    ]
    columns = ("alert", "kind", "endpoint", "version", "summary", "slot (UTC)", "acknowledged by")
    print_table("Alerts", columns, rows, empty="No alerts.")


@app.command()
def follow(
    cursor: Annotated[str, typer.Option(help="Cursor of the last alert handled; `now` for those to come.")] = "",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Print alerts as they come, each with the cursor that resumes after it."""
    request = service.SubscribeAlertsRequest(parent=f"projects/{project}", cursor=cursor)
    with connect() as client:
        for response in client.monitor.SubscribeAlerts(request):
            if as_json:
                print_json(response)
            else:
                alert = response.alert
                console.print(
                    f"{when(alert.time)}  {_kind(alert)}  {alert.endpoint}  {alert.summary}  [{response.cursor}]"
                )


@app.command()
def acknowledge(
    alert: Annotated[str, typer.Argument(help="Id of the alert.")],
    note: Annotated[str, typer.Option("--note", "-m", help="What you say of it.")] = "",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Take note of an alert."""
    name = alert if alert.startswith("projects/") else f"projects/{project}/alerts/{alert}"
    request = service.AcknowledgeAlertRequest(command_id=str(uuid4()), alert=name, note=note)
    with connect() as client:
        taken = client.monitor.AcknowledgeAlert(request).alert
    print_done(f"acknowledged by {taken.acknowledged_by}", taken, as_json=as_json)


def _kind(alert: Alert) -> str:
    return words(AlertKind.Name(alert.kind), "ALERT_KIND_")
