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

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.client import Client
from headrace.connection import Connection, find
from headrace_local.background import BackgroundStack
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
        token = (self.folder / "secrets" / f"{service}.token").read_text()
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
