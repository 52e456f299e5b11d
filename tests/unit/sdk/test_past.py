"""Names and times of the past, as they are given."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from headrace.api.audit.v1.service_pb2 import StateAtResponse
from headrace.api.registry.v1.resources_pb2 import Alias, Model, Version
from headrace.cli.past import moment
from headrace.errors import InvalidArgument, NotFound
from headrace.past import flat, of_alias, owner_of


def test_a_name_tells_its_service() -> None:
    assert owner_of("projects/default/models/m") == "registry"
    assert owner_of("projects/default/pipelineRuns/r") == "orchestrator"


@pytest.mark.parametrize("name", ["", "m", "projects/default/models", "projects/default/cats/m", "models/m/a/b"])
def test_a_name_of_no_entity_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="ENTITY"):
        owner_of(name)


def test_a_time_without_an_offset_is_utc() -> None:
    assert moment("2026-05-03T14:03:00", "T1") == datetime(2026, 5, 3, 14, 3, tzinfo=UTC)
    assert moment("2026-05-03T16:03:00+02:00", "T1") == datetime(2026, 5, 3, 14, 3, tzinfo=UTC)
    with pytest.raises(InvalidArgument, match="T1"):
        moment("yesterday", "T1")


def test_nested_fields_have_paths() -> None:
    assert dict(flat({"a": {"b": [1, {"c": 2}]}, "d": "e"})) == {"a.b[0]": 1, "a.b[1].c": 2, "d": "e"}


def test_an_alias_gives_the_version_it_stood_for() -> None:
    name = "projects/default/models/m"
    versions = [Version(name=f"{name}/versions/{number}") for number in (1, 2, 12)]
    found = StateAtResponse(position=7)
    found.state.Pack(Model(name=name, versions=versions, aliases=[Alias(alias="production", version=2)]))
    version = Version()
    assert of_alias(found, "production").state.Unpack(version)
    assert version == versions[1]
    with pytest.raises(NotFound, match="staging"):
        of_alias(found, "staging")
