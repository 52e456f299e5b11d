"""Fixtures on the whole platform: infrastructure and services as processes, started once per session.

    def test_records(platform: Platform, project: str) -> None:
        with platform.client() as client:
            client.tracking.GetRun(GetRunRequest(name=f"projects/{project}/runs/..."))

    def test_survives(platform: Platform) -> None:
        killed = platform.kill("registry")
        platform.wait_ready("registry", other_than=killed)

Tests share one platform: each keeps to the ``project`` of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.client import Client
from headrace.connection import Connection, find
from headrace_local.background import BackgroundStack
from headrace_local.files import write_json
from headrace_local.stack import Stack
from headrace_local.testing import temporary_folder


class Platform(BackgroundStack):
    """A running platform."""

    @property
    def folder(self) -> Path:
        """Its data folder."""
        return self.stack.folder.path

    @property
    def connection(self) -> Connection:
        """Where it listens, with the operator's token."""
        return find(self.folder, {})

    def client(self) -> Client:
        """A client of it, as the operator."""
        return Client(self.connection)

    def connection_of(self, service: str) -> Connection:
        """As ``connection``, with the token of a service."""
        return self._with_token((self.folder / "secrets" / f"{service}.token").read_text())

    def connection_of_person(self, name: str) -> Connection:
        """As ``connection``, with a token of a person who is let in from now on."""
        token, path = secrets.token_hex(24), self.stack.folder.tokens
        digest = hashlib.sha256(token.encode()).hexdigest()
        entry = {"sha256": digest, "principal": f"persons/{name}", "roles": ["person"]}
        write_json(path, [*json.loads(path.read_text()), entry])
        return self._with_token(token)

    def _with_token(self, token: str) -> Connection:
        own = self.connection
        return Connection(
            addresses=own.addresses,
            token=token,
            serving_url=own.serving_url,
            gateway_url=own.gateway_url,
            kafka_bootstrap=own.kafka_bootstrap,
            s3_endpoint=own.s3_endpoint,
        )


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """Every service and what they stand on, shared by the whole session."""
    os.environ.setdefault("HEADRACE_WEBHOOK_ALLOWED", "127.0.0.0/8")  # receivers of tests listen on loopback
    with temporary_folder() as folder:
        running = Platform(Stack(folder / "data"))
        running.start()
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture
def project() -> str:
    """A project of the test's own."""
    return f"t-{uuid.uuid4().hex[:12]}"
