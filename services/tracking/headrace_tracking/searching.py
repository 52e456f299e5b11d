"""Conditions and orders of a search as SQL, and where its next page goes on.

A page begins after the *place* of the last run before it: the values it was sorted by, and its name. So no run comes
twice or is left out because others were added or put away meanwhile.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson

from headrace_tracking.filters import (
    TYPED,
    Both,
    Comparison,
    Condition,
    Either,
    Negation,
    Order,
    Subject,
    Value,
    type_of,
)
from headrace_tracking.forks import line_of

SORTED_TEXT: Final = 128
"""Texts are sorted by so many characters: the place of a run must fit into a page token."""
_COLUMNS: Final = {
    "start_time": "r.start_time",
    "end_time": "r.end_time",
    "duration_s": "extract(epoch FROM r.end_time - r.start_time)::float8",
    "run": "split_part(r.name, '/', 4)",
    "status": "r.status",
    "experiment": "split_part(r.experiment, '/', 4)",
    "display_name": "r.display_name",
    "parent": "nullif(split_part(r.parent_run, '/', 4), '')",
    "group": "nullif(r.run_group, '')",
    "forked_from": "nullif(split_part(r.forked_from, '/', 4), '')",
    "nested": "(r.parent_run <> '')",
}
_NEVER_NULL: Final = ("start_time", "run", "status", "experiment", "display_name", "nested")
_CODE: Final = {"commit": "nullif(r.code_commit, '')", "dirty": "r.code_dirty"}
_CASTS: Final = {"number": "float8", "text": "text", "time": "timestamptz", "flag": "boolean"}
_OPERATORS: Final = {"!=": "<>", "like": "LIKE", "ilike": "ILIKE", "is null": "IS NULL", "is not null": "IS NOT NULL"}
_Word = str | bool | None
_LATEST_AT: Final = (
    "SELECT nullif(p.value, 'NaN') FROM {points} AND p.key = {{key}} AND p.step = {{step}}"
    " AND p.first_step <= {{step}} AND p.last_step >= {{step}} ORDER BY p.time_us DESC, p.place DESC LIMIT 1"
)
_OWN: Final = _LATEST_AT.format(points="metric_points p WHERE p.run = r.name")
_OF_LINE: Final = _LATEST_AT.format(points="line l JOIN metric_points p ON p.run = l.run WHERE p.step <= l.up_to")
_LINE: Final = line_of("SELECT r.name")
_AT_STEP: Final = f"CASE WHEN r.forked_from = '' THEN ({_OWN}) ELSE (WITH RECURSIVE {_LINE} {_OF_LINE}) END"


class SqlBuilder:
    """SQL over ``source`` with numbered parameters; no text of the caller's ever becomes SQL.

    Args:
        parameters: The first parameters.
        condition: What every run that is looked for fulfils.
    """

    def __init__(self, *parameters: object, condition: Condition | None = None) -> None:
        self.parameters: list[object] = list(parameters)
        self.compared = frozenset(_always_compared(condition))
        """Subjects of which every such run has a value."""
        self._metrics: dict[str, tuple[str, str]] = {}

    @property
    def source(self) -> str:
        """``runs AS r`` with each metric that was spoken of; to be read last."""
        # Nullif keeps the planner from seeing by itself where a LEFT JOIN need not be one.
        needed = {each.key for each in self.compared if each.kind == "metric" and each.part != "at"}
        joins = [
            f" {'JOIN' if name in needed else 'LEFT JOIN'} run_metrics {alias}"
            f" ON {alias}.run = r.name AND {alias}.key = {key}"
            for name, (alias, key) in self._metrics.items()
        ]
        return "runs r" + "".join(joins)

    def parameter(self, value: object) -> str:
        """Adds a parameter and returns its placeholder."""
        self.parameters.append(value)
        return f"${len(self.parameters)}"

    def condition(self, condition: Condition) -> str:
        """A boolean expression; NULL, as false, where a run has not what is compared."""
        match condition:
            case Both(conditions):
                return "(" + " AND ".join(self.condition(each) for each in conditions) + ")"
            case Either(conditions):
                return "(" + " OR ".join(self.condition(each) for each in conditions) + ")"
            case Negation(inner):
                return f"(NOT coalesce({self.condition(inner)}, false))"
            case Comparison():
                return self._comparison(condition)

    def value_of(self, subject: Subject) -> str:
        """A scalar expression; NULL where the run has no such value."""
        match subject.kind:
            case "metric" if subject.part == "at":
                return _AT_STEP.format(key=self.parameter(subject.key), step=self.parameter(subject.step))
            case "metric":
                # The last value as the index of run_metrics has it.
                return f"nullif({self._metric(subject.key)}.{subject.part}, 'NaN')"
            case "attribute":
                return _COLUMNS[subject.key]
            case "code":
                return _CODE[subject.key]
            case "dataset":
                return f"(r.datasets -> 0 ->> '{subject.key}')"  # one of DATASET
            case kind:
                column = "params" if kind == "param" else "tags"
                return f"(r.{column} ->> {self.parameter(subject.key)}::text)"

    def _metric(self, key: str) -> str:
        if key not in self._metrics:
            self._metrics[key] = (f"m{len(self._metrics)}", self.parameter(key))
        return self._metrics[key][0]

    def _comparison(self, comparison: Comparison) -> str:
        subject, operator = comparison.subject, comparison.operator
        if operator in ("is null", "is not null"):
            return f"({self.value_of(subject)} {_OPERATORS[operator]})"
        if subject.kind == "dataset":
            test = self._test(f"d.value ->> '{subject.key}'", comparison)
            return f"EXISTS (SELECT FROM jsonb_array_elements(r.datasets) d WHERE {test})"
        if subject.kind in TYPED and operator == "=" and isinstance(comparison.value, str):  # as an index answers it
            column = "params" if subject.kind == "param" else "tags"
            return f"r.{column} @> {self.parameter({subject.key: comparison.value})}::jsonb"
        return self._test(self.value_of(subject), comparison)

    def _test(self, left: str, comparison: Comparison) -> str:
        cast, value = _CASTS[type_of(comparison.subject)], comparison.value
        if comparison.subject.kind in TYPED and isinstance(value[0] if isinstance(value, tuple) else value, float):
            if comparison.operator == "!=":
                return f"({left} IS NOT NULL AND {number_in(left)} IS DISTINCT FROM {self.parameter(value)}::float8)"
            left, cast = number_in(left), "float8"
        if isinstance(value, tuple):
            return f"{left} = ANY({self.parameter(list(value))}::{cast}[])"
        operator = _OPERATORS.get(comparison.operator, comparison.operator)
        return f"{left} {operator} {self.parameter(value)}::{cast}"


def number_in(text: str) -> str:
    """An SQL expression for the number that a text is; NULL for what is none, and for NaN."""
    return f"CASE WHEN pg_input_is_valid({text}, 'float8') THEN nullif(({text})::float8, 'NaN') END"


@dataclass(frozen=True, slots=True)
class SortKey:
    """One expression that runs are sorted by; runs without a value come last."""

    expression: str
    kind: str
    descending: bool = False
    may_be_null: bool = False

    @property
    def sql(self) -> str:
        """As ORDER BY takes it."""
        nulls = " NULLS LAST" if self.may_be_null else ""
        return f"{self.expression} {'DESC' if self.descending else 'ASC'}{nulls}"


def sort_keys(sql: SqlBuilder, orders: Sequence[Order]) -> list[SortKey]:
    """What runs are sorted by: what was asked for, then the newest first, then the name."""
    keys: list[SortKey] = []
    for each in orders:
        expression, kind = sql.value_of(each.subject), type_of(each.subject)
        if each.subject.kind in TYPED:  # numbers by their size, and before texts
            keys.append(SortKey(number_in(expression), "number", each.descending, may_be_null=True))
        text = f"left({expression}, {SORTED_TEXT})" if kind == "text" else expression
        # Where there is a value always no NULLS LAST is needed, so that an index may be read backwards.
        may_be_null = each.subject not in sql.compared and not _is_always_there(each.subject)
        keys.append(SortKey(text, kind, each.descending, may_be_null=may_be_null))
    return [*keys, SortKey("r.start_time", "time", descending=True), SortKey("r.name", "text")]


def after(sql: SqlBuilder, keys: Sequence[SortKey], place: Sequence[Value | None]) -> str:
    """The condition that a run comes after a place."""
    paired = [
        (key, None if value is None else f"{sql.parameter(value)}::{_CASTS[key.kind]}")
        for key, value in zip(keys, place, strict=True)
    ]
    found = "false"
    for key, value in reversed(paired):
        same = f"{key.expression} IS NULL" if value is None else f"{key.expression} = {value}"
        found = f"({_beyond(key, value)} OR ({same} AND {found}))"
    first, value = paired[0]
    if value is None or first.may_be_null:
        return found
    return f"({first.expression} {'<=' if first.descending else '>='} {value} AND {found})"  # where an index begins


def written(place: Sequence[object]) -> str:
    """A place as text, for a page token."""
    return orjson.dumps([_word(each) for each in place]).decode()


def read(keys: Sequence[SortKey], text: str) -> list[Value | None]:
    """A place that was written with the same keys."""
    words: list[_Word] = orjson.loads(text)
    return [_value(key.kind, word) for key, word in zip(keys, words, strict=True)]


def _beyond(key: SortKey, value: str | None) -> str:
    if value is None:  # nothing comes after what has no value
        return "false"
    further = f"{key.expression} {'<' if key.descending else '>'} {value}"
    return f"({further} OR {key.expression} IS NULL)" if key.may_be_null else further


def _always_compared(condition: Condition | None) -> Iterator[Subject]:
    """Subjects of which every run that fulfils the condition has a value."""
    match condition:
        case Comparison(subject, operator) if operator != "is null" and subject.kind != "dataset":
            yield subject
        case Both(conditions):
            for each in conditions:
                yield from _always_compared(each)
        case _:
            pass


def _is_always_there(subject: Subject) -> bool:
    return (subject.kind == "attribute" and subject.key in _NEVER_NULL) or subject == Subject("code", "dirty")


def _word(value: object) -> _Word:
    match value:
        case float():
            return repr(value)  # JSON has no infinity
        case datetime():
            return value.isoformat()
        case bool() | str() | None:
            return value
        case _:
            raise TypeError(f"runs are not sorted by a {type(value).__name__}")


def _value(kind: str, word: _Word) -> Value | None:
    if not isinstance(word, str) or kind == "text":
        return word
    return float(word) if kind == "number" else datetime.fromisoformat(word)
