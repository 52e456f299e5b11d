"""However aliases and routes move: a version goes exactly when nothing leads to it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace_kit.errors import FailedPrecondition
from tests.support.registering import MODEL, Registry

VERSIONS = 3
moves = st.lists(st.tuples(st.sampled_from(["production", "staging"]), st.integers(1, VERSIONS)), max_size=5)
routes = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sets(st.integers(1, VERSIONS))), max_size=5)


@given(moved=moves, routed=routes, asked=st.integers(1, VERSIONS))
def test_a_version_goes_exactly_when_nothing_leads_to_it(
    moved: list[tuple[str, int]], routed: list[tuple[str, set[int]]], asked: int
) -> None:
    registry = Registry()
    for _ in range(VERSIONS):
        registry.review(registry.register(), approve=True)
    for alias, number in moved:
        registry.promote(f"{MODEL}/versions/{number}", alias=alias)
    for endpoint, numbers in routed:
        registry.routes(endpoint, *numbers)
    expected = {("alias", alias) for alias, number in dict(moved).items() if number == asked}
    expected |= {("endpoint", endpoint) for endpoint, numbers in dict(routed).items() if asked in numbers}

    try:
        registry.delete_version(f"{MODEL}/versions/{asked}")
    except FailedPrecondition as refusal:
        found = {(each.type, each.subject) for each in refusal.violations}
    else:
        found = set()

    assert found == expected
