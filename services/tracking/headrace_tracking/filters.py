"""The language of SearchRuns: text -> conditions -> SQL.

Grammar (keywords in any case)::

    condition  := conjunction ("or" conjunction)*
    conjunction := negation ("and" negation)*
    negation   := "not" negation | "(" condition ")" | comparison
    comparison := subject operator value | subject "is" ["not"] "null"
    subject    := ("metric" | "param" | "tag") "." key | "dataset" "." ("name" | "digest" | "context") | attribute
    key        := letters, digits and _ - . / : @, or any text in backquotes
    operator   := "=" | "!=" | "<" | "<=" | ">" | ">=" | "like" | "ilike" | "in"
    value      := number | "text" | 'text' | "(" value ("," value)* ")"

``metric.k`` is the last value; ``metric.k.min`` and ``metric.k.max`` are the extremes. ``like`` takes ``%`` and ``_``;
``ilike`` takes upper and lower case for the same. A dataset's comparison holds when it does for one of the run's.
A run without the metric, parameter or tag fulfils no comparison on it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from headrace_kit.errors import InvalidArgument

MAX_DEPTH: Final = 50
MAX_COMPARISONS: Final = 100
NUMERIC: Final = ("start_time", "end_time", "duration_s")
TEXTUAL: Final = ("run", "status", "experiment", "display_name")
DATASET: Final = ("name", "digest", "context")

type_of_attribute: Final = {**dict.fromkeys(NUMERIC, "number"), **dict.fromkeys(TEXTUAL, "text")}
_COLUMNS: Final = {
    "start_time": "extract(epoch FROM r.start_time)",
    "end_time": "extract(epoch FROM r.end_time)",
    "duration_s": "extract(epoch FROM r.end_time - r.start_time)",
    "run": "split_part(r.name, '/', 4)",
    "status": "r.status",
    "experiment": "split_part(r.experiment, '/', 4)",
    "display_name": "r.display_name",
}
_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<operator><=|>=|!=|=|<|>)
      | (?P<bracket>[(),])
      | (?P<word>[A-Za-z_](?:[\w\-./:@]|`[^`]*`)*)
    )""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is compared: ``kind`` is metric, param, tag, dataset or attribute; a metric's ``part`` last, min or max."""

    kind: str
    key: str
    part: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A subject against a number, a text, or (operator ``in``) several."""

    subject: Subject
    operator: str
    value: float | str | tuple[float | str, ...]


@dataclass(frozen=True, slots=True)
class Both:
    """All of the conditions hold."""

    conditions: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of the conditions holds."""

    conditions: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Negation:
    """The condition does not hold."""

    condition: "Condition"


Condition = Comparison | Both | Either | Negation


def parse_filter(text: str) -> Condition | None:
    """The condition of a filter; None for an empty one.

    Raises:
        InvalidArgument: Says what was expected, and at which character.
    """
    parser = _Parser(text, field="filter")
    if parser.kind == "end":
        return None
    condition = parser.condition(depth=0)
    parser.expect_end()
    return condition


@dataclass(frozen=True, slots=True)
class Order:
    """A subject to sort by."""

    subject: Subject
    descending: bool


def parse_order(text: str) -> tuple[Order, ...]:
    """The order of a search; empty for none. Raises InvalidArgument."""
    parser = _Parser(text, field="order_by")
    orders: list[Order] = []
    while parser.kind != "end":
        subject = parser.subject()
        descending = parser.word("desc")
        if not descending:
            parser.word("asc")
        orders.append(Order(subject, descending))
        if not parser.take("bracket", ","):
            break
    parser.expect_end()
    return tuple(orders)


class _Parser:
    def __init__(self, text: str, *, field: str) -> None:
        self._text, self._field = text, field
        self._tokens = self._read()
        self._at = 0
        self._comparisons = 0

    @property
    def kind(self) -> str:
        return self._tokens[self._at][0]

    def condition(self, *, depth: int) -> Condition:
        return self._joined("or", Either, lambda: self._joined("and", Both, lambda: self._negation(depth)))

    def subject(self) -> Subject:
        kind, word, _ = self._tokens[self._at]
        if kind != "word":
            self._fail("expected metric.KEY, param.KEY, tag.KEY or an attribute")
        self._at += 1
        space, dot, key = word.partition(".")
        if not dot or space.lower() not in ("metric", "param", "tag", "dataset"):
            return self._attribute(word)
        key = key.replace("`", "")
        if not key or (space.lower() == "dataset" and key not in DATASET):
            self._at -= 1
            wanted = " or ".join(DATASET) if space.lower() == "dataset" else "a key"
            self._fail(f"expected {wanted} after {space!r}")
        if space.lower() != "metric":
            return Subject(space.lower(), key)
        stem, _, last = key.rpartition(".")
        return (
            Subject("metric", stem, last) if stem and last in ("min", "max", "last") else Subject("metric", key, "last")
        )

    def word(self, word: str) -> bool:
        return self.take("word", word)

    def take(self, kind: str, value: str) -> bool:
        found, text, _ = self._tokens[self._at]
        if found == kind and text.lower() == value:
            self._at += 1
            return True
        return False

    def expect_end(self) -> None:
        if self.kind != "end":
            self._fail("expected the end, 'and' or 'or'" if self._field == "filter" else "expected the end or ','")

    def _attribute(self, word: str) -> Subject:
        name = word.lower().removeprefix("attribute.")
        if name not in type_of_attribute:
            self._at -= 1
            known = ", ".join(sorted(type_of_attribute))
            self._fail(
                f"{word!r} is not an attribute ({known}); metrics are metric.KEY, parameters param.KEY, tags tag.KEY"
            )
        return Subject("attribute", name)

    def _joined(
        self, word: str, kind: Callable[[tuple[Condition, ...]], Condition], operand: Callable[[], Condition]
    ) -> Condition:
        found = [operand()]
        while self.word(word):
            found.append(operand())
        return found[0] if len(found) == 1 else kind(tuple(found))

    def _negation(self, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            self._fail(f"more than {MAX_DEPTH} levels of brackets and negations")
        if self.word("not"):
            return Negation(self._negation(depth + 1))
        if self.take("bracket", "("):
            condition = self.condition(depth=depth + 1)
            if not self.take("bracket", ")"):
                self._fail("expected ')'")
            return condition
        return self._comparison()

    def _comparison(self) -> Comparison:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            self._fail(f"more than {MAX_COMPARISONS} comparisons")
        subject = self.subject()
        if self.word("is"):
            operator = "is not null" if self.word("not") else "is null"
            if not self.word("null"):
                self._fail("expected 'null'")
            return Comparison(subject, operator, "")
        kind, operator, _ = self._tokens[self._at]
        if kind != "operator" and operator.lower() not in ("like", "ilike", "in"):
            self._fail("expected one of = != < <= > >= like ilike in is")
        self._at += 1
        operator = operator.lower()
        numeric = subject.kind == "metric" or (
            type_of_attribute.get(subject.key) == "number" and subject.kind == "attribute"
        )
        if operator in ("like", "ilike") and numeric:
            self._fail(f"{operator!r} compares texts; this is a number")
        if operator != "in":
            return Comparison(subject, operator, self._value(subject, numeric=numeric))
        if not self.take("bracket", "("):
            self._fail("expected '(' after 'in'")
        values = [self._value(subject, numeric=numeric)]
        while self.take("bracket", ","):
            values.append(self._value(subject, numeric=numeric))
        if not self.take("bracket", ")"):
            self._fail("expected ',' or ')'")
        return Comparison(subject, operator, tuple(values))

    def _value(self, subject: Subject, *, numeric: bool) -> float | str:
        kind, text, _ = self._tokens[self._at]
        if kind not in ("number", "text"):
            self._fail("expected a number" if numeric else "expected a text in quotes")
        self._at += 1
        if kind == "number" and numeric:
            return float(text)
        plain = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) if kind == "text" else text
        if not numeric:
            return plain
        if subject.kind == "attribute" and subject.key != "duration_s":
            try:
                moment = datetime.fromisoformat(plain)
                return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
            except (ValueError, OverflowError):
                pass
        self._at -= 1
        self._fail(
            "expected a number"
            if subject.key == "duration_s" or subject.kind == "metric"
            else "expected seconds, or a time such as '2026-01-31T12:00:00Z'"
        )
        raise AssertionError

    def _read(self) -> list[tuple[str, str, int]]:
        tokens: list[tuple[str, str, int]] = []
        at, text = 0, self._text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                rest = text[at:].lstrip()
                where = len(text) - len(rest) + 1
                raise InvalidArgument(f"can not read {rest[:20]!r} at character {where}", field=self._field)
            kind = match.lastgroup or ""
            tokens.append((kind, match.group(kind), match.start(kind)))
            at = match.end()
        return [*tokens, ("end", "", len(text))]

    def _fail(self, message: str) -> None:
        kind, text, at = self._tokens[self._at]
        found = "the end" if kind == "end" else repr(text)
        raise InvalidArgument(f"{message}, found {found} at character {at + 1}", field=self._field)


class SqlBuilder:
    """SQL over ``runs AS r`` with numbered parameters; no text of the caller's ever becomes SQL."""

    def __init__(self, *parameters: object) -> None:
        self.parameters: list[object] = list(parameters)

    def parameter(self, value: object) -> str:
        """Adds a parameter and returns its placeholder."""
        self.parameters.append(value)
        return f"${len(self.parameters)}"

    def condition(self, condition: Condition) -> str:
        """A boolean expression that is never NULL."""
        match condition:
            case Both(conditions):
                return "(" + " AND ".join(self.condition(each) for each in conditions) + ")"
            case Either(conditions):
                return "(" + " OR ".join(self.condition(each) for each in conditions) + ")"
            case Negation(inner):
                return f"(NOT {self.condition(inner)})"
            case Comparison():
                return self._comparison(condition)

    def value_of(self, subject: Subject) -> str:
        """A scalar expression; NULL where the run has no such value."""
        if subject.kind == "metric":
            key = self.parameter(subject.key)
            value = f"SELECT nullif(m.{subject.part}, 'NaN') FROM run_metrics m"  # noqa: S608 - last, min or max
            return f"({value} WHERE m.run = r.name AND m.key = {key})"
        if subject.kind == "attribute":
            return _COLUMNS[subject.key]
        if subject.kind == "dataset":
            return f"(r.datasets -> 0 ->> '{subject.key}')"  # one of DATASET
        column = "params" if subject.kind == "param" else "tags"
        return f"(r.{column} ->> {self.parameter(subject.key)}::text)"

    def _comparison(self, comparison: Comparison) -> str:
        subject, operator = comparison.subject, comparison.operator
        if operator in ("is null", "is not null"):
            return f"({self.value_of(subject)} {operator.upper()})"
        if subject.kind == "dataset":
            test = self._test(f"d.value ->> '{subject.key}'", operator, comparison.value, kind="text")
            return f"EXISTS (SELECT FROM jsonb_array_elements(r.datasets) d WHERE {test})"
        if subject.kind == "metric":
            key = self.parameter(subject.key)
            test = self._test(f"m.{subject.part}", operator, comparison.value, kind="double precision")
            found = f"m.run = r.name AND m.key = {key} AND m.{subject.part} <> 'NaN' AND {test}"
            return f"EXISTS (SELECT FROM run_metrics m WHERE {found})"
        numeric = subject.kind == "attribute" and type_of_attribute[subject.key] == "number"
        kind = "double precision" if numeric else "text"
        return f"coalesce({self._test(self.value_of(subject), operator, comparison.value, kind=kind)}, false)"

    def _test(self, left: str, operator: str, value: float | str | tuple[float | str, ...], *, kind: str) -> str:
        if isinstance(value, tuple):
            return f"{left} = ANY({self.parameter(list(value))}::{kind}[])"
        sql = {"!=": "<>", "like": "LIKE", "ilike": "ILIKE"}.get(operator, operator)
        return f"{left} {sql} {self.parameter(value)}::{kind}"
