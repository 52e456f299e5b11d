"""However an alias moved: the version of a moment is the one that a log of its moves tells."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from headrace_kit.errors import FailedPrecondition
from headrace_registry import rollbacks
from tests.support.registering import MODEL, NOW, Registry

VERSIONS = 4


@given(
    steps=st.lists(st.tuples(st.integers(0, VERSIONS), st.integers(0, 3)), max_size=12),
    asked_s=st.integers(-2, 40),
)
def test_the_version_of_a_moment_is_the_one_the_log_tells(steps: list[tuple[int, int]], asked_s: int) -> None:
    """A step is a version to promote, or 0 to remove the alias, and the seconds since the step before."""
    registry = Registry()
    for _ in range(VERSIONS):
        registry.review(registry.register(), approve=True)
    now, told = NOW, [(NOW - timedelta(days=1), 0)]
    for version, wait_s in steps:
        now += timedelta(seconds=wait_s)
        if version:
            moved = registry.promote(f"{MODEL}/versions/{version}", at=now)
        elif moved := list(registry.model.aliases):
            registry.remove_alias("production", actor="persons/operator", at=now)
        if moved:
            told.append((now, version))
    asked = NOW + timedelta(seconds=asked_s)
    wanted = [version for time, version in told if time <= asked][-1:] or [0]
    if not registry.model.aliases:
        return

    assert rollbacks.version_at(registry.model.aliases[0], asked) == wanted[0]

    current = registry.model.aliases[0].version
    try:
        registry.roll_back_to_time(asked, at=max(now, asked))
    except FailedPrecondition:
        assert wanted[0] in (0, current)
    else:
        assert registry.model.aliases[0].version == wanted[0] != current
