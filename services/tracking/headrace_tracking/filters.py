"""The language of SearchRuns and SearchTraces: text -> conditions; :mod:`headrace_tracking.searching` makes them SQL.

Grammar (keywords in any case)::

    condition  := conjunction ("or" conjunction)*
    conjunction := negation ("and" negation)*
    negation   := "not" negation | "(" condition ")" | comparison
    comparison := subject operator value | subject "is" ["not"] "null"
    subject    := ("metric" | "param" | "tag") "." key | "dataset" "." ("name" | "digest" | "context")
                | "code" "." ("commit" | "dirty") | attribute
    key        := letters, digits and _ - . / : @, or any text in backquotes
    operator   := "=" | "!=" | "<" | "<=" | ">" | ">=" | "like" | "ilike" | "in"
    value      := number | "text" | 'text' | "true" | "false" | "(" value ("," value)* ")"
    order      := subject ["asc" | "desc"] ("," subject ["asc" | "desc"])*

``metric.k`` is the last value; ``metric.k.min`` and ``metric.k.max`` are the extremes, ``metric.k.at.100`` is the value
at step 100. A time is seconds since 1970 or ISO 8601, UTC where it does not say. ``like`` takes ``%`` and ``_``;
``ilike`` takes upper and lower case for the same. A dataset's comparison holds when it does for one of the run's.
A parameter or tag is compared with a number as a number, and with a text in quotes as a text: ``param.lr < 0.1`` and
``param.depth = 3`` hold for ``1e-2`` and ``3.0``; what is no number is unequal to every number, and fulfils nothing
else.
A run without the metric, parameter or tag fulfils no comparison on it.

Of traces there are instead ``metadata.key``, ``tag.key``, ``span.name``, ``.kind``, ``.type`` and ``.status``,
``span.attribute.key``, and attributes of their own. A comparison on a span holds when it does for one of the trace's.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn

from headrace_kit.errors import InvalidArgument

MAX_DEPTH: Final = 50
MAX_COMPARISONS: Final = 100
MAX_ORDERS: Final = 8
DATASET: Final = ("name", "digest", "context")
CODE: Final = {"commit": "text", "dirty": "flag"}
ATTRIBUTES: Final = {
    **dict.fromkeys(("run", "status", "experiment", "display_name", "parent", "group", "forked_from"), "text"),
    **dict.fromkeys(("start_time", "end_time"), "time"),
    "duration_s": "number",
    "nested": "flag",
}
"""Attributes of a run, with the type of each."""
OF_TRACES: Final = {
    **dict.fromkeys(
        ("trace", "name", "status", "experiment", "run", "request", "response", "client_request_id"), "text"
    ),
    **dict.fromkeys(("start_time", "end_time"), "time"),
    **dict.fromkeys(("duration_s", "span_count"), "number"),
}
"""Attributes of a trace, with the type of each."""
OF_SPANS: Final = ("name", "kind", "type", "status")
Value = float | str | bool | datetime
TYPED: Final = ("param", "tag", "metadata", "span_attribute")
"""Kinds whose values are compared as what they are compared with: with a number as numbers, with a text as texts."""
_SPACES: Final = {
    "metric": ("a key", ()),
    "param": ("a key", ()),
    "tag": ("a key", ()),
    "dataset": (" or ".join(DATASET), DATASET),
    "code": (" or ".join(CODE), tuple(CODE)),
}
"""What stands before a dot, and what may stand behind it."""
_SPACES_OF_TRACES: Final = {
    "tag": ("a key", ()),
    "metadata": ("a key", ()),
    "span_attribute": ("a key", ()),
    "span": (", ".join(OF_SPANS) + " or attribute.KEY", OF_SPANS),
}
_EXPECTED: Final = {
    "number": "a number",
    "text": "a text in quotes",
    "flag": "true or false",
    "time": "seconds, or a time such as '2026-01-31T12:00:00Z'",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST_S: Final = (datetime(1, 1, 2, tzinfo=UTC) - _EPOCH).total_seconds()
_LATEST_S: Final = (datetime(9999, 12, 30, tzinfo=UTC) - _EPOCH).total_seconds()
_MAX_STEP: Final = 1 << 63
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
class Vocabulary:
    """What can be compared.

    Attributes:
        kind: Kind of the subjects that are attributes.
        attributes: Those, with the type of each.
        spaces: What stands before a dot, and what may stand behind it: in words, and one of which (empty for any key).
        subjects: The rest of it in words.
    """

    kind: str
    attributes: Mapping[str, str]
    spaces: Mapping[str, tuple[str, tuple[str, ...]]]
    subjects: str


RUNS: Final = Vocabulary("attribute", ATTRIBUTES, _SPACES, "metric.KEY, param.KEY, tag.KEY, dataset.NAME or code.NAME")
TRACES: Final = Vocabulary(
    "trace", OF_TRACES, _SPACES_OF_TRACES, "tag.KEY, metadata.KEY, span.NAME or span.attribute.KEY"
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is compared.

    Attributes:
        kind: ``metric``, ``param``, ``tag``, ``dataset``, ``code`` or ``attribute``; of traces ``tag``, ``metadata``,
            ``span``, ``span_attribute`` or ``trace``.
        key: Which one.
        part: Of a metric: ``last``, ``min``, ``max`` or ``at``.
        step: Of a metric's part ``at``: the step.
    """

    kind: str
    key: str
    part: str = ""
    step: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """A subject against a value of its type, or (operator ``in``) several."""

    subject: Subject
    operator: str
    value: Value | tuple[Value, ...]


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


def type_of(subject: Subject) -> str:
    """What a subject's values are: ``number``, ``text``, ``time`` or ``flag``."""
    match subject.kind:
        case "metric":
            return "number"
        case "code":
            return CODE[subject.key]
        case "attribute":
            return ATTRIBUTES[subject.key]
        case "trace":
            return OF_TRACES[subject.key]
        case _:
            return "text"


def parse_filter(text: str, vocabulary: Vocabulary = RUNS) -> Condition | None:
    """The condition of a filter; None for an empty one.

    Raises:
        InvalidArgument: Says what was expected, and at which character.
    """
    parser = _Parser(text, field="filter", vocabulary=vocabulary)
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


def parse_order(
    text: str, vocabulary: Vocabulary = RUNS, *, field: str = "order_by", most: int = MAX_ORDERS
) -> tuple[Order, ...]:
    """At most so many subjects, each with its direction; empty for none. Raises InvalidArgument for ``field``."""
    parser = _Parser(text, field=field, vocabulary=vocabulary)
    orders: list[Order] = []
    while parser.kind != "end":
        subject = parser.subject()
        descending = parser.word("desc")
        if not descending:
            parser.word("asc")
        orders.append(Order(subject, descending))
        if not parser.more_orders(len(orders), most):
            break
    parser.expect_end()
    return tuple(orders)


class _Parser:
    def __init__(self, text: str, *, field: str, vocabulary: Vocabulary) -> None:
        self._text, self._field, self._vocabulary = text, field, vocabulary
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
            self._fail(f"{self._vocabulary.subjects}, or an attribute")
        space, dot, key = word.partition(".")
        space, spaces = space.lower(), self._vocabulary.spaces
        if not dot or space not in spaces:
            return self._attribute(word)
        if space == "span" and key.lower().startswith("attribute."):
            space, key = "span_attribute", key.partition(".")[2]
        wanted, known = spaces[space]
        key = key.replace("`", "")
        if not key or (known and key not in known):
            self._fail(wanted, after=f" after {space!r}")
        subject = self._metric(key) if space == "metric" else Subject(space, key)
        self._at += 1
        return subject

    def more_orders(self, count: int, most: int) -> bool:
        """Whether there is a comma."""
        if not self.take("bracket", ","):
            return False
        if count == most:
            self._fail(f"at most {most} keys")
        return True

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
            self._fail("the end, 'and' or 'or'" if self._field == "filter" else "the end or ','")

    def _attribute(self, word: str) -> Subject:
        name = word.lower().removeprefix("attribute.")
        if name not in self._vocabulary.attributes:
            known = ", ".join(sorted(self._vocabulary.attributes))
            self._fail(f"an attribute ({known}), {self._vocabulary.subjects}")
        self._at += 1
        return Subject(self._vocabulary.kind, name)

    def _metric(self, key: str) -> Subject:
        stem, _, last = key.rpartition(".")
        if stem and last in ("min", "max", "last"):
            return Subject("metric", stem, last)
        name, _, word = stem.rpartition(".")
        if name and word == "at" and re.fullmatch(r"-?\d+", last, re.ASCII):
            if not -_MAX_STEP <= int(last) < _MAX_STEP:
                self._fail("a step of 64 bits")
            return Subject("metric", name, "at", int(last))
        return Subject("metric", key, "last")

    def _joined(
        self, word: str, kind: Callable[[tuple[Condition, ...]], Condition], operand: Callable[[], Condition]
    ) -> Condition:
        found = [operand()]
        while self.word(word):
            found.append(operand())
        return found[0] if len(found) == 1 else kind(tuple(found))

    def _negation(self, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            self._fail(f"at most {MAX_DEPTH} levels of brackets and negations")
        if self.word("not"):
            return Negation(self._negation(depth + 1))
        if self.take("bracket", "("):
            condition = self.condition(depth=depth + 1)
            if not self.take("bracket", ")"):
                self._fail("')'")
            return condition
        return self._comparison()

    def _comparison(self) -> Comparison:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            self._fail(f"at most {MAX_COMPARISONS} comparisons")
        subject = self.subject()
        if self.word("is"):
            operator = "is not null" if self.word("not") else "is null"
            if not self.word("null"):
                self._fail("'null'")
            return Comparison(subject, operator, "")
        operator, wanted = self._operator(subject), type_of(subject)
        if operator != "in":
            is_typed = subject.kind in TYPED and operator not in ("like", "ilike")
            return Comparison(subject, operator, self._literal() if is_typed else self._value(wanted))
        if not self.take("bracket", "("):
            self._fail("'('", after=" after 'in'")
        began = self._at
        values = self._values(self._literal if subject.kind in TYPED else lambda: self._value(wanted))
        if len({type(each) for each in values}) > 1:  # what is not all numbers is compared as text
            self._at = began
            values = self._values(lambda: self._value(wanted))
        return Comparison(subject, operator, values)

    def _values(self, value: Callable[[], Value]) -> tuple[Value, ...]:
        values = [value()]
        while self.take("bracket", ","):
            values.append(value())
        if not self.take("bracket", ")"):
            self._fail("',' or ')'")
        return tuple(values)

    def _literal(self) -> Value:
        """A number as a number, true and false as a parameter has them, anything else as text."""
        kind, text, _ = self._tokens[self._at]
        if kind == "word" and text.lower() in ("true", "false"):
            self._at += 1
            return text.lower()
        return self._value("number" if kind == "number" else "text")

    def _operator(self, subject: Subject) -> str:
        kind, text, _ = self._tokens[self._at]
        operator, wanted = text.lower(), type_of(subject)
        allowed = ("=", "!=") if wanted == "flag" else ("=", "!=", "<", "<=", ">", ">=", "in")
        if wanted == "text":
            allowed = (*allowed, "like", "ilike")
        if kind not in ("operator", "word") or operator not in allowed:
            self._fail(f"one of {' '.join(allowed)} is", after=f": this is a {wanted}" if wanted != "text" else "")
        self._at += 1
        return operator

    def _value(self, wanted: str) -> Value:
        kind, text, _ = self._tokens[self._at]
        plain = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) if kind == "text" else text
        found: Value | None = None
        match wanted:
            case "number" if kind == "number":
                found = float(text)
            case "text" if kind in ("number", "text"):
                found = plain
            case "flag" if plain.lower() in ("true", "false"):
                found = plain.lower() == "true"
            case "time" if kind in ("number", "text"):
                found = _time(plain)
            case _:
                pass
        if found is None:
            self._fail(_EXPECTED[wanted])
        self._at += 1
        return found

    def _read(self) -> list[tuple[str, str, int]]:
        tokens: list[tuple[str, str, int]] = []
        at, text = 0, self._text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                rest = text[at:].lstrip()
                where = len(text) - len(rest) + 1
                metadata = {
                    "position": str(where),
                    "expected": "a word, a number or a text in quotes",
                    "found": rest[:20],
                }
                raise InvalidArgument(
                    f"can not read {rest[:20]!r} at character {where}", field=self._field, metadata=metadata
                )
            kind = match.lastgroup or ""
            tokens.append((kind, match.group(kind), match.start(kind)))
            at = match.end()
        return [*tokens, ("end", "", len(text))]

    def _fail(self, expected: str, *, after: str = "") -> NoReturn:
        kind, text, at = self._tokens[self._at]
        found = "the end" if kind == "end" else repr(text)
        raise InvalidArgument(
            f"expected {expected}{after}, found {found} at character {at + 1}",
            field=self._field,
            metadata={"position": str(at + 1), "expected": expected, "found": text},
        )


def _time(text: str) -> datetime | None:
    """Seconds since 1970 or ISO 8601; a moment that no calendar has is the nearest it has."""
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if math.isnan(seconds):
            return None
        return _EPOCH + timedelta(seconds=min(max(seconds, _EARLIEST_S), _LATEST_S))
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
