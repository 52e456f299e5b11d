"""Gates as a shell and a form carry them: ``rmse<=25``, ``holdout/auc>0.01``, ``30d``, ``1:reviewer``; both ways.

Each reader raises InvalidArgument with an example; ``name`` says what was read: an option, a line of a form.
"""

from __future__ import annotations

import re
from typing import Final

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.errors import InvalidArgument
from headrace.gates import COMPARISONS, MEASURES

UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIGNS: Final[dict[int, str]] = {number: sign for sign, number in COMPARISONS.items()}
_THRESHOLD = re.compile(r"(?:(?P<check>[^/<>=]+)/)?(?P<metric>[^<>=]+?)\s*(?P<sign><=|>=|<|>)\s*(?P<value>\S+)")
_CONTEST = re.compile(r"(?:(?P<check>[^/<>]+)/)?(?P<metric>[^<>]+?)\s*(?P<sign>[<>])\s*(?P<margin>\S*)")
_AGE = re.compile(r"(\d{1,9})([smhd])")
_REPLAY = re.compile(
    rf"(?P<requests>\d{{1,9}})(?::(?P<measure>{'|'.join(MEASURES.values())})\s*<=\s*(?P<most>[^@\s]+))?(?:@(?P<age>\S+))?"
)
_PERSONS = re.compile(r"(\d{1,3})(?::(.+))?")


def threshold(text: str, name: str = "") -> resources.MetricGate:
    """The gate that ``metric<=value`` or ``check/metric<=value`` says."""
    found = _THRESHOLD.fullmatch(text)
    if found is None:
        raise _refused(name, f"write it as 'rmse<=25' or 'check/rmse<=25', not {text!r}")
    return resources.MetricGate(
        metric=found["metric"],
        comparison=COMPARISONS[found["sign"]],
        threshold=_number(found["value"], name),
        check=found["check"] or "",
    )


def contest(text: str, name: str = "") -> resources.ChampionGate:
    """The gate that ``metric<``, ``metric>margin`` or ``check/metric<margin`` says."""
    found = _CONTEST.fullmatch(text)
    if found is None:
        raise _refused(name, f"write it as 'rmse<' or 'auc>0.01', not {text!r}")
    return resources.ChampionGate(
        metric=found["metric"],
        higher_is_better=found["sign"] == ">",
        margin=_number(found["margin"] or "0", name),
        check=found["check"] or "",
    )


def seconds(text: str, name: str = "") -> int:
    """Seconds of ``90s``, ``15m``, ``12h`` or ``30d``; 0 for nothing."""
    if not text:
        return 0
    found = _AGE.fullmatch(text)
    if found is None:
        raise _refused(name, f"write it as 30d, 12h, 15m or 90s, not {text!r}")
    return int(found[1]) * UNITS_S[found[2]]


def persons(text: str, name: str = "") -> resources.ApprovalGate:
    """The gate that ``2`` or ``1:reviewer`` says."""
    found = _PERSONS.fullmatch(text)
    if found is None:
        raise _refused(name, f"write it as 2 or 1:reviewer, not {text!r}")
    return resources.ApprovalGate(count=int(found[1]), role=found[2] or "")


def replay(text: str, name: str = "") -> resources.ReplayGate:
    """The gate that ``1000``, ``1000@7d`` or ``1000:max_difference<=0.5@7d`` says."""
    found = _REPLAY.fullmatch(text)
    if found is None:
        known = ", ".join(MEASURES.values())
        raise _refused(name, f"write it as 1000 or '1000:MEASURE<=0.5@7d' ({known}), not {text!r}")
    measures = {each: number for number, each in MEASURES.items()}
    return resources.ReplayGate(
        requests=int(found["requests"]),
        measure=measures.get(found["measure"], resources.REPLAY_MEASURE_UNSPECIFIED),
        most=_number(found["most"] or "0", name),
        max_age_s=seconds(found["age"] or "", name),
    )


def written_threshold(gate: resources.MetricGate) -> str:
    """What ``threshold`` reads as this gate."""
    return f"{_of(gate.check)}{gate.metric}{_SIGNS.get(gate.comparison, '?')}{_digits(gate.threshold)}"


def written_contest(gate: resources.ChampionGate) -> str:
    """What ``contest`` reads as this gate."""
    margin = _digits(gate.margin) if gate.margin else ""
    return f"{_of(gate.check)}{gate.metric}{'>' if gate.higher_is_better else '<'}{margin}"


def written_age(age_s: int) -> str:
    """What ``seconds`` reads as this age; empty for 0."""
    unit = next((each for each in ("d", "h", "m") if age_s % UNITS_S[each] == 0), "s")
    return f"{age_s // UNITS_S[unit]}{unit}" if age_s else ""


def written_persons(gate: resources.ApprovalGate) -> str:
    """What ``persons`` reads as this gate."""
    return f"{gate.count}:{gate.role}" if gate.role else str(gate.count)


def written_replay(gate: resources.ReplayGate) -> str:
    """What ``replay`` reads as this gate; empty for none."""
    if not gate.requests:
        return ""
    bound = f":{MEASURES[gate.measure]}<={_digits(gate.most)}" if gate.measure else ""
    return f"{gate.requests}{bound}{f'@{written_age(gate.max_age_s)}' if gate.max_age_s else ''}"


def _of(check: str) -> str:
    return f"{check}/" if check else ""


def _digits(value: float) -> str:
    return repr(value).removesuffix(".0")


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _refused(name, f"{text!r} is no number") from None


def _refused(name: str, message: str) -> InvalidArgument:
    return InvalidArgument(f"{name}: {message}" if name else message)
