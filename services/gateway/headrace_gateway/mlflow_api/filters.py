"""MLflow's filter strings: comparisons joined by AND. Read once, then translated, or applied to what is at hand.

Grammar (keywords in any case)::

    filter     := comparison ("and" comparison)*
    comparison := identifier operator literal | identifier ["not"] "in" "(" literal ("," literal)* ")"
                | identifier "is" ["not"] "null"
    identifier := [kind "."] key; the key may be in backquotes or double quotes
    operator   := "=" | "!=" | "<" | "<=" | ">" | ">=" | "like" | "ilike"
    literal    := number | 'text' | "text"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headrace_gateway.mlflow_api.errors import MlflowError

Value = float | str
KINDS: Final = {
    **dict.fromkeys(("metric", "metrics"), "metric"),
    **dict.fromkeys(("param", "params", "parameter", "parameters"), "param"),
    **dict.fromkeys(("tag", "tags"), "tag"),
    **dict.fromkeys(("dataset", "datasets"), "dataset"),
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), "attribute"),
}
KINDS_OF_TRACES: Final = {
    **dict.fromkeys(("tag", "tags"), "tag"),
    **dict.fromkeys(("metadata", "request_metadata"), "metadata"),
    **dict.fromkeys(("attribute", "attributes", "trace"), "attribute"),
    **{each: each for each in ("span", "feedback", "expectation", "issue")},
}
MAX_LENGTH: Final = 20_000
_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.)*")
      | (?P<operator><=|>=|!=|<>|==?|<|>)
      | (?P<bracket>[(),])
      | (?P<word>[A-Za-z_][\w\-]*(?:\.(?:`[^`]*`|"[^"]*"|[\w\-./:@]+))*|`[^`]*`)
    )""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """``kind`` is metric, param, tag, dataset or attribute; ``operator`` in lower case, one of those of the grammar."""

    kind: str
    key: str
    operator: str
    value: Value | tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """A key to sort by."""

    kind: str
    key: str
    descending: bool


def parse_filter(text: str, kinds: Mapping[str, str] = KINDS) -> list[Comparison]:
    """The comparisons of a filter; all must hold. ``kinds`` are the words before a dot. Raises MlflowError."""
    if len(text) > MAX_LENGTH:
        raise MlflowError(f"Invalid filter string: over {MAX_LENGTH} characters.")
    tokens = _Tokens(text)
    found: list[Comparison] = []
    while not tokens.ended:
        if found:
            tokens.expect("and")
        found.append(_comparison(tokens, kinds))
    return found


def parse_order(texts: Sequence[str], kinds: Mapping[str, str] = KINDS) -> list[Order]:
    """Keys to sort by, each with ASC or DESC. Raises MlflowError."""
    return [_order(_Tokens(text), kinds) for text in texts]


def holds(comparison: Comparison, value: Value | None) -> bool:
    """Whether a comparison holds for a value; none holds where there is no value, but IS NULL."""
    operator, wanted = comparison.operator, comparison.value
    if operator in ("is null", "is not null"):
        return (value is None) == (operator == "is null")
    if value is None:
        return False
    if isinstance(wanted, tuple):
        return (value in wanted) == (operator == "in")
    if operator in ("like", "ilike"):
        return _like(str(wanted), str(value), ignore_case=operator == "ilike")
    if isinstance(value, str) != isinstance(wanted, str):
        raise MlflowError(f"Invalid filter string: {comparison.key} can not be compared with {wanted!r}.")
    return _COMPARE[operator](value, wanted)


_COMPARE: Final[dict[str, Callable[[Value, Value], bool]]] = {
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,  # type: ignore[operator] # of one type, see holds
    "<=": lambda left, right: left <= right,  # type: ignore[operator]
    ">": lambda left, right: left > right,  # type: ignore[operator]
    ">=": lambda left, right: left >= right,  # type: ignore[operator]
}


class _Tokens:
    def __init__(self, text: str) -> None:
        self._text, self._found, self._at = text, list[tuple[str, str]](), 0
        at, text = 0, text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self.wrong(f"can not read {text[at:].strip()[:30]!r}")
            kind = match.lastgroup or ""
            self._found.append((kind, match.group(kind)))
            at = match.end()

    @property
    def ended(self) -> bool:
        return self._at >= len(self._found)

    def take(self, *kinds: str) -> str:
        """The next token, of one of the kinds."""
        if self.ended or self._found[self._at][0] not in kinds:
            found = "the end" if self.ended else repr(self._found[self._at][1])
            raise self.wrong(f"expected {' or '.join(kinds)}, found {found}")
        self._at += 1
        return self._found[self._at - 1][1]

    def took(self, word: str) -> bool:
        """Whether the next token is this word or bracket, which is taken."""
        if self.ended or self._found[self._at][0] not in ("word", "bracket"):
            return False
        if self._found[self._at][1].lower() != word:
            return False
        self._at += 1
        return True

    def expect(self, word: str) -> None:
        if not self.took(word):
            raise self.wrong(f"expected {word.upper()}")

    def wrong(self, message: str) -> MlflowError:
        return MlflowError(f"Invalid filter string {self._text[:200]!r}: {message}.")


def _comparison(tokens: _Tokens, kinds: Mapping[str, str]) -> Comparison:
    kind, key = _identifier(tokens, kinds)
    if tokens.took("is"):
        operator = "is not null" if tokens.took("not") else "is null"
        tokens.expect("null")
        return Comparison(kind, key, operator, "")
    negated = tokens.took("not")
    if tokens.took("in"):
        tokens.expect("(")
        values = [_literal(tokens)]
        while tokens.took(","):
            values.append(_literal(tokens))
        tokens.expect(")")
        return Comparison(kind, key, "not in" if negated else "in", tuple(values))
    if negated:
        raise tokens.wrong("expected IN after NOT")
    for word in ("like", "ilike"):
        if tokens.took(word):
            return Comparison(kind, key, word, _literal(tokens))
    operator = tokens.take("operator")
    operator = {"==": "=", "<>": "!="}.get(operator, operator)
    return Comparison(kind, key, operator, _literal(tokens))


def _identifier(tokens: _Tokens, kinds: Mapping[str, str]) -> tuple[str, str]:
    word = tokens.take("word", "text")
    head, dot, rest = word.partition(".")
    if dot and head.lower() in kinds:
        key = rest
        kind = kinds[head.lower()]
    else:
        kind, key = "attribute", word
    if len(key) > 1 and key[0] == key[-1] and key[0] in "`\"'":
        key = key[1:-1]
    if not key:
        raise tokens.wrong("a key is empty")
    return kind, key


def _literal(tokens: _Tokens) -> Value:
    text = tokens.take("number", "text")
    if text[0] in "'\"":
        return re.sub(r"\\(.)", r"\1", text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1])
    return float(text)


def _order(tokens: _Tokens, kinds: Mapping[str, str]) -> Order:
    kind, key = _identifier(tokens, kinds)
    descending = tokens.took("desc")
    if not descending:
        tokens.took("asc")
    if not tokens.ended:
        raise tokens.wrong("expected ASC or DESC")
    return Order(kind, key, descending)


def _like(pattern: str, text: str, *, ignore_case: bool) -> bool:
    parts = ["." if each == "_" else ".*" if each == "%" else re.escape(each) for each in pattern]
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    return re.fullmatch("".join(parts), text, flags) is not None
