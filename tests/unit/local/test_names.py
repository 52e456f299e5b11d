from __future__ import annotations

import pytest

from headrace_local.errors import UnknownPart
from headrace_local.names import INFRASTRUCTURE, SERVICES, select


def test_everything_runs_when_nothing_is_named() -> None:
    assert select(None) == {*INFRASTRUCTURE, *SERVICES}


def test_a_service_brings_the_infrastructure_but_no_other_service() -> None:
    assert select(["tracking", "registry"]) == {*INFRASTRUCTURE, "tracking", "registry"}


def test_serving_brings_the_registry() -> None:
    assert select(["serving"]) == {*INFRASTRUCTURE, "serving", "registry"}


def test_infrastructure_needs_nothing_else() -> None:
    assert select(["postgres"]) == {"postgres"}


def test_without_services_only_infrastructure_is_left() -> None:
    assert select(None, services=False) == set(INFRASTRUCTURE)


def test_unknown_names_are_all_told() -> None:
    with pytest.raises(UnknownPart, match=r"no part is called regsitry, trakcing"):
        select(["trakcing", "regsitry", "monitor"])
