"""Whatever is set and recorded: an alias moves exactly when every gate passes, and each gate is in the answer."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace_kit.errors import FailedPrecondition
from headrace_registry import gates
from tests.support.registering import NOW, Registry, unmet

METRICS = ("rmse", "mae")
DIGESTS = ("", "sha256:a", "sha256:b")
PERSONS = ("persons/ada", "persons/b", "persons/c", "persons/d")
AUTHOR = "persons/ada"

numbers = st.floats(-100, 100)
metrics = st.dictionaries(st.sampled_from(METRICS), numbers)
checks = st.lists(st.tuples(st.sampled_from(["q", "h"]), st.booleans(), metrics, st.sampled_from(DIGESTS)), max_size=4)
reviews = st.lists(
    st.tuples(st.sampled_from(PERSONS), st.booleans(), st.sampled_from([(), ("reviewer",), ("operator",)])), max_size=6
)
asked = st.builds(
    resources.Gates,
    alias=st.just("production"),
    required_checks=st.lists(st.sampled_from(["q", "h"]), unique=True),
    approval_required=st.booleans(),
    compatible_signature_required=st.booleans(),
    metrics=st.lists(
        st.builds(
            resources.MetricGate,
            metric=st.sampled_from(METRICS),
            comparison=st.sampled_from([1, 2, 3, 4]),
            threshold=numbers,
            check=st.sampled_from(["", "q"]),
        ),
        max_size=2,
    ),
    champion=st.lists(
        st.builds(
            resources.ChampionGate,
            metric=st.sampled_from(METRICS),
            higher_is_better=st.booleans(),
            margin=st.floats(0, 10),
            check=st.sampled_from(["", "h"]),
        ),
        max_size=2,
    ),
    max_age_s=st.sampled_from([0, 60, 7200]),
    max_run_age_s=st.sampled_from([0, 60, 7200]),
    safe_format_required=st.booleans(),
    approvals=st.lists(
        st.builds(resources.ApprovalGate, count=st.integers(1, 3), role=st.sampled_from(["", "reviewer"])), max_size=2
    ),
)


@given(
    wanted=asked,
    registered=metrics,
    recorded=checks,
    of_champion=checks,
    said=reviews,
    kind=st.sampled_from([1, 2, 3, 4]),
    consent=st.booleans(),
    age_s=st.sampled_from([0, 59, 61, 7201]),
)
def test_an_alias_moves_exactly_when_every_gate_passes(
    *,
    wanted: resources.Gates,
    registered: dict[str, float],
    recorded: list[tuple[str, bool, dict[str, float], str]],
    of_champion: list[tuple[str, bool, dict[str, float], str]],
    said: list[tuple[str, bool, tuple[str, ...]]],
    kind: resources.ModelFormat.ValueType,
    consent: bool,
    age_s: int,
) -> None:
    registry = Registry()
    champion = registry.promoted()
    version = registry.register(author=AUTHOR, kind=kind, metrics=registered, run_time=NOW - timedelta(seconds=30))
    for name, rows in ((version, recorded), (champion, of_champion)):
        for check, passed, values, digest in rows:
            registry.validate(name, check, passed=passed, metrics=values, digest=digest)
    for person, approve, roles in said:
        if not (approve and person == AUTHOR):
            registry.review(version, approve=approve, actor=person, roles=roles)
    if consent:
        registry.consent(version, given=True, actor="persons/b")
    registry.gates_as(wanted, actor="persons/d")
    now = NOW + timedelta(seconds=age_s)
    verdict = gates.judge(registry.model, registry.model.versions[1], alias="production", actor="persons/x", now=now)

    refused = {each.gate for each in verdict.results if not each.passed}
    if refused:
        with pytest.raises(FailedPrecondition) as refusal:
            registry.promote(version, actor="persons/x", at=now)
        assert unmet(refusal.value) == refused
        assert registry.model.aliases[0].version == 1
        [event] = registry.promote(version, actor="persons/x", at=now, override=True)
        assert isinstance(event, events.VersionPromoted)
        assert tuple(event.promotion.override.unmet) == verdict.unmet
        assert list(registry.model.versions[1].overrides) == [event.promotion.override]
        assert registry.model.aliases[0].history[-1] == event.promotion
    else:
        [event] = registry.promote(version, actor="persons/x", at=now)
        assert isinstance(event, events.VersionPromoted)
        assert all(each.passed for each in event.promotion.results)
        assert not event.promotion.HasField("override")
        assert tuple(event.promotion.results) == verdict.results
    assert all(each.reason for each in verdict.results)
    asked_for = len(wanted.metrics) + len(wanted.champion) + len(wanted.approvals) + len(wanted.required_checks)
    asked_for += bool(wanted.max_age_s) + bool(wanted.max_run_age_s) + wanted.safe_format_required
    assert len(verdict.results) >= asked_for + wanted.compatible_signature_required + 1
    for result in verdict.results:
        if result.gate.startswith("approvals"):
            assert AUTHOR not in result.actors
            assert len(set(result.actors)) == len(result.actors) == result.value
        if result.HasField("value") and result.gate.startswith("metric:"):
            sides = {1: result.value < result.threshold, 2: result.value <= result.threshold}
            sides |= {3: result.value >= result.threshold, 4: result.value > result.threshold}
            assert result.passed == sides[result.comparison]
