"""``headrace webhooks``: whom the registry tells of its events, and what did not arrive."""

from __future__ import annotations

import secrets
from base64 import b64encode
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace.cli.output import (
    Json,
    Project,
    console,
    print_done,
    print_fields,
    print_json,
    print_table,
    short,
    when,
    words,
)
from headrace.client import Client, connect
from headrace.errors import InvalidArgument

app = typer.Typer(help="Webhooks: whom the registry tells of its events.", no_args_is_help=True)
Webhook = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Id of the webhook.")]
Events = Annotated[
    list[str] | None,
    typer.Option("--event", help="Kind of event to deliver, such as VersionPromoted; again for more; all without."),
]
Model = Annotated[str | None, typer.Option(help="Id of the one model whose events are delivered.")]
SecretFile = Annotated[
    Path | None, typer.Option(help="File with the secret that signs; without, one is made and printed this once.")
]
_PAGE = 1000


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    url: Annotated[str, typer.Argument(help="Where deliveries are sent, http or https.")],
    event: Events = None,
    model: Model = None,
    description: str = "",
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Send MLflow's payloads and headers.")] = False,
    secret_file: SecretFile = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Create a webhook, and print the secret by which its receiver knows deliveries."""
    secret = _secret(secret_file)
    webhook = resources.Webhook(
        display_name=name,
        url=url,
        event_types=event or [],
        model=_model(project, model),
        description=description,
        payload=resources.WEBHOOK_PAYLOAD_MLFLOW if mlflow else resources.WEBHOOK_PAYLOAD_EVENTS,
    )
    request = service.CreateWebhookRequest(
        command_id=str(uuid4()), parent=f"projects/{project}", webhook=webhook, secret=secret
    )
    with connect() as client:
        found = client.webhooks.CreateWebhook(request).webhook
    told = {} if secret_file else {"secret": secret}
    if as_json:
        print_json({"webhook": found, **told})
        return
    print_fields(f"created {short(found.name)}", [("url", found.url), *told.items()])


@app.command("list")
def list_(project: Project = "default", as_json: Json = False) -> None:
    """List webhooks."""
    request = service.ListWebhooksRequest(parent=f"projects/{project}", page_size=_PAGE)
    with connect() as client:
        found = list(client.webhooks.ListWebhooks(request).webhooks)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            short(each.name),
            each.display_name,
            _status(each),
            each.origin,
            ", ".join(each.event_types) or "all",
            short(each.model) or "all",
        )
        for each in found
    ]
    print_table("Webhooks", ("id", "name", "status", "target", "events", "models"), rows, empty="No webhooks yet.")


@app.command()
def show(webhook: Webhook, project: Project = "default", as_json: Json = False) -> None:
    """Show a webhook."""
    with connect() as client:
        found = client.webhooks.GetWebhook(service.GetWebhookRequest(name=_name(project, webhook))).webhook
    if as_json:
        print_json(found)
        return
    print_fields(
        found.display_name,
        [
            ("name", found.name),
            ("status", _status(found)),
            ("url", found.url),
            ("events", ", ".join(found.event_types) or "all"),
            ("model", found.model or "all"),
            ("payloads", words(resources.WebhookPayload.Name(found.payload), "WEBHOOK_PAYLOAD_")),
            ("signed", "yes" if found.signed else "no"),
            ("description", found.description),
            ("created (UTC)", f"{when(found.create_time)} by {found.creator}"),
        ],
    )


@app.command()
def update(
    webhook: Webhook,
    url: str | None = None,
    name: str | None = None,
    event: Events = None,
    model: Model = None,
    description: str | None = None,
    disable: Annotated[bool | None, typer.Option("--disable/--enable", help="Stop, or go on with deliveries.")] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Change a webhook; what is not given stays."""
    wanted = resources.Webhook(
        name=_name(project, webhook),
        url=url or "",
        display_name=name or "",
        event_types=event or [],
        model=_model(project, model),
        description=description or "",
        status=resources.WEBHOOK_STATUS_DISABLED if disable else resources.WEBHOOK_STATUS_ACTIVE,
    )
    given = {
        "url": url,
        "display_name": name,
        "event_types": event,
        "model": model,
        "description": description,
        "status": disable,
    }
    request = service.UpdateWebhookRequest(command_id=str(uuid4()), webhook=wanted)
    request.update_mask.paths.extend(path for path, value in given.items() if value is not None)
    if not request.update_mask.paths:
        raise InvalidArgument("say what shall change, such as --url")
    with connect() as client:
        print_done(f"changed {webhook}", client.webhooks.UpdateWebhook(request).webhook, as_json=as_json)


@app.command()
def rotate(
    webhook: Webhook, secret_file: SecretFile = None, project: Project = "default", as_json: Json = False
) -> None:
    """Give a webhook another secret; the one before signs beside it for a day."""
    secret = _secret(secret_file)
    request = service.UpdateWebhookRequest(command_id=str(uuid4()), secret=secret)
    request.webhook.name = _name(project, webhook)
    with connect() as client:
        client.webhooks.UpdateWebhook(request)
    told = {} if secret_file else {"secret": secret}
    if as_json:
        print_json({"webhook": request.webhook.name, **told})
    else:
        print_fields(f"rotated the secret of {webhook}", told.items())


@app.command()
def delete(webhook: Webhook, project: Project = "default", as_json: Json = False) -> None:
    """Delete a webhook with its secret and what was not delivered."""
    request = service.DeleteWebhookRequest(command_id=str(uuid4()), name=_name(project, webhook))
    with connect() as client:
        print_done(f"deleted {webhook}", client.webhooks.DeleteWebhook(request).webhook, as_json=as_json)


@app.command("test")
def try_(
    webhook: Webhook,
    event: Annotated[str, typer.Option(help="Kind of event to make up.")] = "",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Send a made-up event once; exit status 1 when the target does not take it."""
    with connect() as client:
        request = service.TestWebhookRequest(name=_name(project, webhook), event_type=event)
        answer = client.webhooks.TestWebhook(request)
    if as_json:
        print_json(answer)
    else:
        console.print(f"the target took it: {answer.response_status}" if answer.delivered else answer.error)
    if not answer.delivered:
        raise typer.Exit(1)


@app.command()
def deliveries(
    webhook: Annotated[str, typer.Argument(metavar="[WEBHOOK]", help="Id of the webhook; all without.")] = "",
    dead: Annotated[bool, typer.Option("--dead", help="Dead letters alone.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List deliveries, newest event first: what is due, what was delivered, what was given up."""
    with connect() as client:
        found = _deliveries(client, _name(project, webhook) if webhook else f"projects/{project}", dead=dead)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each.id,
            short(each.webhook),
            each.position,
            each.event_type,
            words(resources.WebhookDeliveryState.Name(each.state), "WEBHOOK_DELIVERY_STATE_"),
            each.attempts,
            when(each.done_time) or f"due {when(each.next_time)}",
            each.error,
        )
        for each in found
    ]
    columns = ("id", "webhook", "position", "event", "state", "attempts", "when (UTC)", "error")
    print_table("Deliveries", columns, rows, empty="None.")


@app.command()
def redrive(
    delivery: Annotated[str, typer.Argument(metavar="[ID]", help="Id of the delivery.")] = "",
    webhook: Annotated[str, typer.Option(help="All dead letters of this webhook instead.")] = "",
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Make a dead letter due again, or all of a webhook."""
    if bool(delivery) == bool(webhook):
        raise InvalidArgument("give the id of a delivery, or --webhook")
    with connect() as client:
        ids = [delivery] if delivery else [each.id for each in _deliveries(client, _name(project, webhook), dead=True)]
        found = [
            client.webhooks.RedriveDelivery(service.RedriveDeliveryRequest(command_id=str(uuid4()), id=each)).delivery
            for each in ids
        ]
    if as_json:
        print_json(found)
    else:
        console.print(f"{len(found)} due again")


def _deliveries(client: Client, parent: str, *, dead: bool) -> list[resources.WebhookDelivery]:
    request = service.ListDeliveriesRequest(parent=parent, page_size=_PAGE)
    if dead:
        request.state = resources.WEBHOOK_DELIVERY_STATE_DEAD
    found: list[resources.WebhookDelivery] = []
    while True:
        listed = client.webhooks.ListDeliveries(request)
        found.extend(listed.deliveries)
        request.page_token = listed.next_page_token
        if not request.page_token or not dead:
            return found


def _secret(file: Path | None) -> str:
    if file is None:
        return f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
    try:
        return file.read_text().strip()
    except (OSError, UnicodeError) as error:
        raise InvalidArgument(f"--secret-file: {file} can not be read") from error


def _status(webhook: resources.Webhook) -> str:
    return words(resources.WebhookStatus.Name(webhook.status), "WEBHOOK_STATUS_")


def _name(project: str, webhook: str) -> str:
    return webhook if webhook.startswith("projects/") else f"projects/{project}/webhooks/{webhook}"


def _model(project: str, model: str | None) -> str:
    if not model or model.startswith("projects/"):
        return model or ""
    return f"projects/{project}/models/{model}"
