"""Webhooks as people use them, and a registry that is killed while it owes deliveries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace.client import Client
from tests.support.eventually import eventually
from tests.support.platform import Platform
from tests.support.receiving import SECRET, Received, receiving

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def client(platform: Platform) -> Iterator[Client]:
    with platform.client() as operator:
        yield operator


def headrace(platform: Platform, *arguments: str, status: int = 0) -> Any:  # Any: JSON
    environment = {**os.environ, "HEADRACE_DATA": str(platform.folder), "NO_COLOR": "1"}
    command = [str(Path(sys.executable).parent / "headrace"), *arguments, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def create(client: Client, project: str, url: str, **fields: Any) -> resources.Webhook:
    webhook = resources.Webhook(display_name="ours", url=url, **fields)
    request = service.CreateWebhookRequest(
        command_id=str(uuid4()), parent=f"projects/{project}", webhook=webhook, secret=SECRET
    )
    return client.webhooks.CreateWebhook(request).webhook


def create_model(client: Client, project: str, name: str) -> None:
    request = service.CreateModelRequest(command_id=str(uuid4()), name=f"projects/{project}/models/{name}")
    client.registry.CreateModel(request)


def subjects(came: list[Received]) -> set[str]:
    return {each.json["subject"].rpartition("/")[2] for each in came}


def test_from_the_command_line(platform: Platform, client: Client, project: str) -> None:
    with receiving() as receiver:
        made = headrace(platform, "webhooks", "create", "chat", receiver.url, "--project", project)
        name, secret = made["webhook"]["name"], made["secret"]
        create_model(client, project, "delays")
        eventually(lambda: receiver.received)
        assert receiver.received[0].signed_by(secret)
        assert receiver.received[0].json["type"] == "headrace.registry.v1.ModelCreated"

        assert headrace(platform, "webhooks", "test", name)["delivered"]
        new = headrace(platform, "webhooks", "rotate", name)["secret"]
        create_model(client, project, "winds")
        eventually(lambda: len(receiver.received) == 3)
        assert receiver.received[2].signed_by(new)
        [listed] = headrace(platform, "webhooks", "list", "--project", project)
        assert listed["url"] == receiver.url
        assert secret not in json.dumps(listed)
        eventually(lambda: headrace(platform, "webhooks", "deliveries", name)[0].get("done_time"))
        receiver.answer = lambda _: 500
        assert not headrace(platform, "webhooks", "test", name, status=1).get("delivered")
        headrace(platform, "webhooks", "update", name, "--disable")
        assert headrace(platform, "webhooks", "show", name)["status"] == "WEBHOOK_STATUS_DISABLED"
        headrace(platform, "webhooks", "delete", name)
        assert headrace(platform, "webhooks", "list", "--project", project) == []


def test_a_registry_that_is_killed_owes_what_it_owed(platform: Platform, client: Client, project: str) -> None:
    """Killed over and over between the events and their deliveries, it loses none."""
    with receiving() as receiver:
        create(client, project, receiver.url)
        models = {f"m{number}" for number in range(30)}
        for number in range(30):
            create_model(client, project, f"m{number}")
            if number % 10 == 9:
                killed = platform.kill("registry")
                platform.wait_ready("registry", other_than=killed)
        eventually(lambda: subjects(receiver.received), lambda came: came == models, within_s=90)

    assert len(set(receiver.ids)) == 30, "a repeat has the id of the first"
    assert all(each.signed_by(SECRET) for each in receiver.received)


def test_a_registry_that_is_killed_during_an_attempt_makes_it_again(
    platform: Platform, client: Client, project: str
) -> None:
    """The target takes the payload, and the registry never hears of it: at least once is twice here."""
    killed: list[int] = []

    def answer(_: Received) -> int:
        if not killed:
            killed.append(platform.kill("registry"))
        return 200

    with receiving(answer) as receiver:
        create(client, project, receiver.url)
        create_model(client, project, "delays")
        eventually(lambda: len(receiver.received) == 2, within_s=90)

    assert len(set(receiver.ids)) == 1
    assert receiver.received[0].body == receiver.received[1].body
    platform.wait_ready("registry", other_than=killed[0])


def test_nothing_of_a_secret_is_in_a_log_of_the_process(platform: Platform, client: Client, project: str) -> None:
    with receiving(lambda _: 500) as receiver:
        webhook = create(client, project, f"{receiver.url}/pa7h-token")
        create_model(client, project, "delays")
        eventually(lambda: receiver.received)
    rotate = service.UpdateWebhookRequest(command_id=str(uuid4()), webhook=webhook, secret="an0ther-secret")
    client.webhooks.UpdateWebhook(rotate)
    told = "".join(each.read_text() for each in (platform.folder / "logs").glob("*.log"))
    assert "rpc" in told or told
    assert not any(word in told for word in (SECRET, "pa7h-token", "an0ther-secret"))
