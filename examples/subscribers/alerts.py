"""Tells of alerts: prints each, and posts it to a webhook or runs a command.

    python examples/subscribers/alerts.py --webhook http://localhost:9000/alerts
    python examples/subscribers/alerts.py --command notify-send

An alert is acknowledged once it was told. When telling fails, the program ends; started again, it goes on with that
alert. So each is told at least once, and the webhook drops repeats by the event's id.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from typing import cast
from urllib.request import Request, urlopen

import headrace
from headrace.api.monitor.v1.events_pb2 import AlertRaised
from headrace.events import Event

WITHIN_S = 10.0


def body(event: Event) -> dict[str, str]:
    """What the webhook gets."""
    alert = cast("AlertRaised", event.message).alert
    return {
        "event": event.id,
        "alert": alert.name,
        "endpoint": alert.endpoint,
        "model_version": alert.model_version,
        "summary": alert.summary,
        "raised": event.occurred_at.isoformat(),
    }


def post(url: str, event: Event) -> None:
    """Posts an alert; raises when the webhook does not take it."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": event.id}
    request = Request(url, json.dumps(body(event)).encode(), headers)  # noqa: S310 - the user's own address
    with urlopen(request, timeout=WITHIN_S):  # noqa: S310 - see above
        pass


def main() -> None:
    """Runs until it is stopped."""
    parser = argparse.ArgumentParser(description="Tell of alerts.")
    parser.add_argument("--webhook", help="URL to post each alert to, as JSON")
    parser.add_argument("--command", help="program to run with each alert's summary")
    parser.add_argument("--project", default="default")
    parser.add_argument("--start", default="now", help="now, beginning, or a time such as 2026-05-03T14:03:00Z")
    given = parser.parse_args()

    with headrace.events.alerts("alerts-example", project=given.project, start=given.start) as alerts:
        for delivery in alerts:
            with delivery as event:
                said = body(event)
                print(f"{said['raised']}  {said['endpoint']}  {said['summary']}", flush=True)
                if given.webhook:
                    post(given.webhook, event)
                if given.command:
                    subprocess.run([given.command, said["summary"]], check=True, timeout=WITHIN_S)


if __name__ == "__main__":
    main()
