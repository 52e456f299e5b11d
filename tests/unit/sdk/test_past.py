"""Names and times of the past, as they are given."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from headrace.cli.past import moment
from headrace.errors import InvalidArgument
from headrace.past import flat, owner_of


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
