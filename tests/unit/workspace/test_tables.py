"""Every table of every migration is declared as what it is, and read models are those that a rebuild makes."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import headrace_kit
from headrace.past import OWNERS
from headrace_kit.eventstore import Aggregate
from headrace_kit.tables import KIT_TABLES, Kind
from headrace_local.names import WITH_DATABASE
from headrace_monitor.store import REGISTRY_TABLES
from tools.tables import tables_of

CREATED = re.compile(r"^CREATE TABLE (?:IF NOT EXISTS )?(?:public\.)?(\w+) \(", re.MULTILINE)
DROPPED = re.compile(r"^DROP TABLE (\w+);", re.MULTILINE)
LEDGER = "schema_migrations"
PROJECTED = {"monitor": set(REGISTRY_TABLES)}


def created(package: str) -> set[str]:
    folder = Path(importlib.import_module(package).__file__ or "").parent / "migrations"
    text = "\n".join(file.read_text() for file in sorted(folder.glob("*.sql")))
    return set(CREATED.findall(text)) - set(DROPPED.findall(text))


def aggregates(service: str) -> list[Aggregate]:  # type: ignore[type-arg]  # of any state
    package = importlib.import_module(f"headrace_{service}")
    names = [each.name for each in pkgutil.iter_modules(package.__path__) if not each.name.startswith("__")]
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    found = [each for module in modules for each in vars(module).values() if isinstance(each, Aggregate)]
    return list({id(each): each for each in found}.values())


def test_every_table_of_the_kit_is_declared() -> None:
    names = [table.name for table in KIT_TABLES]
    assert len(set(names)) == len(names)
    assert set(names) == created(headrace_kit.__name__) | {LEDGER}


@pytest.mark.parametrize("service", WITH_DATABASE)
def test_every_table_of_a_service_is_declared(service: str) -> None:
    names = [table.name for table in tables_of(service)]
    assert len(set(names)) == len(names)
    assert set(names) == created(f"headrace_{service}")


@pytest.mark.parametrize("service", WITH_DATABASE)
def test_read_models_are_what_streams_and_projections_write(service: str) -> None:
    written = [name for each in aggregates(service) for name in each.tables]
    assert len(set(written)) == len(written)
    read_models = {table.name for table in tables_of(service) if table.kind is Kind.READ_MODEL}
    assert read_models == set(written) | PROJECTED.get(service, set())


@pytest.mark.parametrize("service", WITH_DATABASE)
def test_streams_are_named_after_their_kind(service: str) -> None:
    collections = {name for name, owner in OWNERS.items() if owner == service}
    assert {f"{each.name}s" for each in aggregates(service)} == collections
    for each in aggregates(service):
        assert each.owns(f"projects/p/{each.name}s/x")
        assert not each.owns(f"projects/p/{each.name}/x")
