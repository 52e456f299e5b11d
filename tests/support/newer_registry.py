"""The registry of a later release: ``python -m tests.support.newer_registry``. Its models' rows tell who made them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from google.protobuf.message import Message

from headrace.api.registry.v1.resources_pb2 import Model
from headrace_kit.app import run_service
from headrace_kit.eventstore import Row
from headrace_kit.postgres import migrate
from headrace_kit.settings import load
from headrace_registry import store
from headrace_registry.config import RegistrySettings

COLUMN = "ALTER TABLE models ADD COLUMN creator text NOT NULL DEFAULT '';"


def rows(stream_id: str, state: Model, events: Sequence[Message]) -> Sequence[Row]:
    """The row of a model, with one column more."""
    [row] = store.model_rows(stream_id, state, events)
    return [Row(row.table, row.key, {**(row.values or {}), "creator": state.creator})]


def main() -> None:
    """Runs it."""
    store.MODEL = replace(store.MODEL, rows=rows, revision=store.MODEL.revision + 1)  # as the later release has it
    from headrace_registry.app import build  # noqa: PLC0415 - with the aggregate above

    settings = load(RegistrySettings)
    folder = settings.data / "later" / "migrations"
    folder.mkdir(parents=True, exist_ok=True)
    (Path(folder) / "0002_creator.sql").write_text(COLUMN)
    assert settings.migration_dsn is not None
    dsn = settings.migration_dsn.get_secret_value()
    asyncio.run(migrate(dsn, ["headrace_registry", folder], service_dsn=settings.postgres_dsn.get_secret_value()))
    run_service("registry", settings, lambda: build(settings))


if __name__ == "__main__":
    main()
