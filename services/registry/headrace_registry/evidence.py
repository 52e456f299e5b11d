"""What gates say of what was measured, of age, format and persons: pure, each answer with its evidence."""

import math
import operator
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from headrace.api.common.v1.resources_pb2 import NamedValue
from headrace.api.registry.v1.resources_pb2 import (
    COMPARISON_AT_LEAST,
    COMPARISON_AT_MOST,
    COMPARISON_GREATER,
    COMPARISON_LESS,
    MODEL_FORMAT_ONNX,
    MODEL_FORMAT_SKOPS,
    Approval,
    ApprovalGate,
    ChampionGate,
    Comparison,
    GateResult,
    Gates,
    MetricGate,
    Model,
    ModelFormat,
    ReplayGate,
    ReplayMeasure,
    Validation,
    Version,
)

SAFE_FORMATS: Final = frozenset({MODEL_FORMAT_ONNX, MODEL_FORMAT_SKOPS})
"""Formats whose loading runs no code of the package. An MLflow package may hold pickles."""

SIGNS: Final = {COMPARISON_LESS: "<", COMPARISON_AT_MOST: "<=", COMPARISON_AT_LEAST: ">=", COMPARISON_GREATER: ">"}
"""Comparisons as people write them."""

MEASURES: Final[dict[int, str]] = {
    int(number): name.removeprefix("REPLAY_MEASURE_").lower() for name, number in ReplayMeasure.items() if number
}
"""What gates look at in a replay, by the names of its fields."""

_HOLDS: Final[dict[int, Callable[[float, float], bool]]] = {
    COMPARISON_LESS: operator.lt,
    COMPARISON_AT_MOST: operator.le,
    COMPARISON_AT_LEAST: operator.ge,
    COMPARISON_GREATER: operator.gt,
}
_ROUNDING: Final = 1e-9
"""An improvement that misses its margin by less than this part of it has reached it: 0.3 beats 0.2 by 0.1."""


def results(
    gates: Gates, model: Model, version: Version, *, champion: int, reviews: Iterable[Approval], now: datetime
) -> Iterator[GateResult]:
    """What each of the gates says that asks for something measured, for youth, for a safe format, for persons.

    Args:
        gates: What the alias asks for.
        model: The model, for the champion.
        version: Who is to be promoted.
        champion: Number of the version that the alias points to or pointed to last; 0 for none.
        reviews: The reviews that stand, one a person.
        now: Against which ages are reckoned.
    """
    for metric in gates.metrics:
        yield of_metric(metric, version)
    for contest in gates.champion:
        yield of_champion(contest, version, model.versions[champion - 1] if champion else None)
    if gates.HasField("replay"):
        yield of_replay(gates.replay, version, champion, now)
    if gates.max_age_s:
        yield of_age(version, gates.max_age_s, now)
    if gates.max_run_age_s:
        yield of_run_age(version, gates.max_run_age_s, now)
    if gates.safe_format_required:
        yield of_format(version)
    granted = [each for each in reviews if each.approved and each.actor != version.author]
    for wanted in gates.approvals:
        yield of_approvals(wanted, granted)


def of_metric(gate: MetricGate, version: Version) -> GateResult:
    """Whether a metric of the version is on the right side of a threshold. What is not measured is on no side."""
    result = GateResult(gate=f"metric:{gate.metric}", threshold=gate.threshold, comparison=gate.comparison)
    wanted = f"{gate.metric} must be {SIGNS.get(gate.comparison, '?')} {gate.threshold:.10g}"
    found: float | None
    if gate.check:
        check = next((each for each in reversed(version.validations) if each.check == gate.check), None)
        found = _value(check.metrics, gate.metric) if check is not None else None
        missing = f"record a result of the check {gate.check!r} with it"
        _stands_on(result, check)
    else:
        found = _value(version.metrics, gate.metric)
        missing = "the version was registered without it"
        result.event_ids.extend([version.event_id] if version.event_id else [])
    if found is None:
        result.reason = f"{wanted}: {missing}"
        return result
    result.value, result.passed = found, compare(found, gate.comparison, gate.threshold)
    result.reason = f"{wanted}: it is {found:.10g}"
    return result


def of_champion(gate: ChampionGate, version: Version, champion: Version | None) -> GateResult:
    """Whether a version is better than the champion in a metric, both measured on the same data.

    The data is that of the version's newest result with the metric: of several it can not choose the kindest.
    """
    comparison = COMPARISON_GREATER if gate.higher_is_better else COMPARISON_LESS
    result = GateResult(gate=f"champion:{gate.metric}", comparison=comparison, margin=gate.margin)
    if champion is None or champion.number == version.number:
        result.passed = True
        result.reason = "there is no champion yet" if champion is None else "it is the champion"
        return result
    result.champion = champion.number
    mine = measured(version, gate)
    if mine is None:
        result.reason = f"record a check of {version.name} with {gate.metric} and the dataset it was measured on"
        return result
    result.dataset_digest = mine.dataset.digest
    _stands_on(result, mine)
    theirs = measured(champion, gate, digest=mine.dataset.digest)
    if theirs is None:
        result.reason = (
            f"record a check of the champion, version {champion.number}, with {gate.metric} on the same dataset, "
            f"{mine.dataset.digest}"
        )
        return result
    _stands_on(result, theirs)
    result.value = _value(mine.metrics, gate.metric) or 0.0
    result.threshold = _value(theirs.metrics, gate.metric) or 0.0
    gain = result.value - result.threshold if gate.higher_is_better else result.threshold - result.value
    result.passed = gain > 0 and (gain >= gate.margin or math.isclose(gain, gate.margin, rel_tol=_ROUNDING))
    side = "above" if gate.higher_is_better else "below"
    by = f" by {gate.margin:.10g} or more" if gate.margin else ""
    result.reason = (
        f"{gate.metric} must be {side} that of version {champion.number}, {result.threshold:.10g}{by}: "
        f"it is {result.value:.10g}"
    )
    return result


def measured(version: Version, gate: ChampionGate, digest: str = "") -> Validation | None:
    """The newest result of a check that has the metric of the gate, on named data, or on that of ``digest``."""
    for each in reversed(version.validations):
        meant = gate.check in ("", each.check) and _value(each.metrics, gate.metric) is not None
        if meant and each.dataset.digest and digest in ("", each.dataset.digest):
            return each
    return None


def of_replay(gate: ReplayGate, version: Version, champion: int, now: datetime) -> GateResult:
    """Whether a version answered again, lately, what the champion had answered, without errors and near enough.

    The newest replay against the champion counts: of several the version can not choose the kindest.
    """
    result = GateResult(gate="replayed", champion=champion)
    if not champion or champion == version.number:
        result.passed = True
        result.reason = "it is the champion" if champion else "there is no champion yet"
        return result
    ask = f"replay the last {gate.requests} requests that version {champion} answered"
    newest = next(
        (
            each
            for each in reversed(version.validations)
            if each.HasField("replay") and each.replay.champion == champion
        ),
        None,
    )
    if newest is None:
        result.reason = ask
        return result
    replay, age_s = newest.replay, max(0.0, (now - newest.time.ToDatetime(tzinfo=UTC)).total_seconds())
    _stands_on(result, newest)
    result.dataset_digest = replay.digest
    faults: list[str] = []
    if replay.requests < gate.requests:
        faults.append(f"it answered {replay.requests} requests again, {gate.requests} are needed")
    if replay.errors:
        faults.append(f"it failed on {replay.errors} of {replay.requests} requests")
    if gate.max_age_s and age_s > gate.max_age_s:
        faults.append(f"it was replayed {_span(age_s)} ago, {_span(gate.max_age_s)} ago at most is allowed")
    measure = MEASURES.get(gate.measure)
    if measure is not None:
        result.value, result.threshold = getattr(replay, measure), gate.most
        result.comparison = COMPARISON_AT_MOST
        if not result.value <= gate.most:
            faults.append(f"{measure} must be <= {gate.most:.10g}: it is {result.value:.10g}")
    result.passed = not faults
    told = f"it answered {replay.requests} requests again as version {champion} had"
    result.reason = f"{'; '.join(faults)}: {ask}" if faults else told
    return result


def of_age(version: Version, most_s: int, now: datetime) -> GateResult:
    """Whether a version was registered lately enough."""
    age = now - version.create_time.ToDatetime(tzinfo=UTC)
    return _of_age("freshness", version, "it was registered", age=age, most_s=most_s)


def of_run_age(version: Version, most_s: int, now: datetime) -> GateResult:
    """Whether its run began lately enough; when that is not known, it did not."""
    if not version.HasField("run_time"):
        reason = "its run must be young: the version was registered without the time of its run"
        return GateResult(gate="run_freshness", reason=reason, threshold=most_s, comparison=COMPARISON_AT_MOST)
    # A run that began after its version was registered began no later than that.
    began = min(version.run_time.ToDatetime(tzinfo=UTC), version.create_time.ToDatetime(tzinfo=UTC))
    return _of_age("run_freshness", version, "its run began", age=now - began, most_s=most_s)


def of_format(version: Version) -> GateResult:
    """Whether loading the package runs no code of it, or a person consented."""
    name, consent = ModelFormat.Name(version.format).removeprefix("MODEL_FORMAT_"), version.format_consent
    result = GateResult(gate="format")
    if version.format in SAFE_FORMATS:
        result.passed, result.reason = True, f"{name} runs no code when it is loaded"
    elif consent.given and consent.actor != version.author:
        result.passed, result.reason = True, f"{consent.actor} consented to {name}: {consent.reason}"
        result.actors.append(consent.actor)
        result.event_ids.append(consent.event_id)
    else:
        ask = f"a person other than {version.author}, its author, must consent to it"
        result.reason = f"{name} may run code when it is loaded: {ask}"
    return result


def of_approvals(gate: ApprovalGate, granted: Iterable[Approval]) -> GateResult:
    """Whether enough persons approved. ``granted`` has one approval a person, none of the author's."""
    counted = [each for each in granted if not gate.role or gate.role in each.roles]
    result = GateResult(
        gate=f"approvals:{gate.role}" if gate.role else "approvals",
        passed=len(counted) >= gate.count,
        value=len(counted),
        threshold=gate.count,
        comparison=COMPARISON_AT_LEAST,
        actors=[each.actor for each in counted],
        event_ids=[each.event_id for each in counted if each.event_id],
    )
    of_role = f" with the role {gate.role!r}" if gate.role else ""
    who = f": {', '.join(result.actors)}" if counted else ""
    result.reason = f"{len(counted)} of {gate.count} persons{of_role} approved it{who}"
    return result


def compare(value: float, comparison: Comparison.ValueType, threshold: float) -> bool:
    """Whether a value is on the right side of a threshold; no number that is none is on any."""
    holds = _HOLDS.get(comparison)
    return holds is not None and holds(value, threshold)


def _of_age(gate: str, version: Version, what: str, *, age: timedelta, most_s: int) -> GateResult:
    age_s = max(0.0, age.total_seconds())
    return GateResult(
        gate=gate,
        passed=age_s <= most_s,
        reason=f"{what} {_span(age_s)} ago, {_span(most_s)} ago at most is allowed",
        value=age_s,
        threshold=most_s,
        comparison=COMPARISON_AT_MOST,
        event_ids=[version.event_id] if version.event_id else [],
    )


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds:.3g} seconds"


def _value(metrics: Iterable[NamedValue], name: str) -> float | None:
    return next((each.value for each in metrics if each.name == name), None)


def _stands_on(result: GateResult, check: Validation | None) -> None:
    if check is not None:
        result.actors.extend([] if check.actor in result.actors else [check.actor])
        result.event_ids.extend([check.event_id] if check.event_id else [])
        if check.dataset.digest:
            result.dataset_digest = check.dataset.digest
