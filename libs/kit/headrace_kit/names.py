"""Resource names, the ids in them, and texts that people give."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from headrace_kit.errors import InvalidArgument

MAX_NAME: Final = 500
_ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,98}[a-z0-9])?")
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,248}[A-Za-z0-9])?")
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
# Control characters (C0, DEL, C1), line separators, and what turns the direction of text around: the latter makes one
# name look like another. Tabs and line ends are told apart, for texts of several lines.
_UNSEEN: Final = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff"
_FORBIDDEN: Final = re.compile(f"[{_UNSEEN}\t\r\n]")
_FORBIDDEN_IN_LINES: Final = re.compile(f"[{_UNSEEN}]")


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A form of resource name, such as ``projects/{project}/models/{model}``.

    An id is 1 to 100 characters of ``a-z 0-9 . _ -``, first and last a letter or digit. A placeholder in ``free`` may
    hold any text of 1 to 250 characters without ``/`` and control characters, and no space at its ends. One in
    ``labels`` may hold 1 to 250 letters (A-Z, a-z), digits, spaces and ``. _ -``, first and last a letter or digit.
    """

    pattern: str
    free: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def parse(self, name: str, *, field: str) -> dict[str, str]:
        """The ids by placeholder. Raises InvalidArgument naming the field and the form."""
        parts, wanted = name.split("/"), self.pattern.split("/")
        if len(name) > MAX_NAME or len(parts) != len(wanted):
            raise InvalidArgument(f"give a name of the form {self.pattern}", field=field)
        found: dict[str, str] = {}
        for part, want in zip(parts, wanted, strict=True):
            match = _PLACEHOLDER.fullmatch(want)
            if match is not None:
                found[match[1]] = self._id(part, match[1], field)
            elif part != want:
                raise InvalidArgument(f"give a name of the form {self.pattern}", field=field)
        return found

    def format(self, **ids: str) -> str:
        """The name made of ids, by placeholder."""
        return self.pattern.format(**ids)

    def _id(self, part: str, key: str, field: str) -> str:
        if key in self.labels:
            return parse_label(part, field=field, what=key)
        if key not in self.free:
            if not _ID.fullmatch(part):
                raise InvalidArgument(
                    f"{key} is 1 to 100 characters of a-z 0-9 . _ - with a letter or digit at both ends", field=field
                )
            return part
        require_text(part, field=field, most=250)
        if part != part.strip() or part in (".", ".."):
            raise InvalidArgument(f"{key} has no space at its ends, and is not . or ..", field=field)
        return part


PERSON: Final = NamePattern("persons/{person}")
PROJECT: Final = NamePattern("projects/{project}")
EXPERIMENT: Final = NamePattern("projects/{project}/experiments/{experiment}", free=("experiment",))
RUN: Final = NamePattern("projects/{project}/runs/{run}")
MODEL: Final = NamePattern("projects/{project}/models/{model}", labels=("model",))
VERSION: Final = NamePattern("projects/{project}/models/{model}/versions/{version}", labels=("model",))
WEBHOOK: Final = NamePattern("projects/{project}/webhooks/{webhook}")
PIPELINE: Final = NamePattern("projects/{project}/pipelines/{pipeline}")
PIPELINE_RUN: Final = NamePattern("projects/{project}/pipelineRuns/{run}")
SCHEDULE: Final = NamePattern("projects/{project}/schedules/{schedule}")
ENDPOINT: Final = NamePattern("projects/{project}/endpoints/{endpoint}")
MONITOR: Final = NamePattern("projects/{project}/monitors/{monitor}")
ALERT: Final = NamePattern("projects/{project}/alerts/{alert}")
POLICY: Final = NamePattern("projects/{project}/policies/{policy}")


def parse_name(pattern: str, name: str, *, field: str = "name") -> dict[str, str]:
    """The ids of a name by placeholder: ``parse_name("projects/{p}/runs/{r}", name)``. Raises InvalidArgument."""
    return _pattern(pattern).parse(name, field=field)


def parse_id(text: str, *, field: str) -> str:
    """An id that stands alone, such as that of a schedule. Raises InvalidArgument."""
    if not _ID.fullmatch(text):
        raise InvalidArgument(
            "an id is 1 to 100 characters of a-z 0-9 . _ - with a letter or digit at both ends", field=field
        )
    return text


def parse_label(text: str, *, field: str, what: str = "a name") -> str:
    """A name of letters, digits, spaces and ``. _ -``, as a placeholder in ``labels`` holds. Raises InvalidArgument."""
    if not _LABEL.fullmatch(text):
        message = "is 1 to 250 letters, digits, spaces and . _ - with a letter or digit at both ends"
        raise InvalidArgument(f"{what} {message}", field=field)
    return text


def require_text(text: str, *, field: str, least: int = 1, most: int, lines: bool = False) -> str:
    """A text within its limits, in characters, that shows all it holds (``lines`` lets tabs and line ends in).

    Refused are control characters, line separators, and those that turn the direction of text around.

    Raises:
        InvalidArgument: names the field and the limit.
    """
    if not least <= len(text) <= most:
        bounds = f"{least} to {most}" if least else f"at most {most}"
        raise InvalidArgument(f"give {bounds} characters; these are {len(text)}", field=field)
    found = (_FORBIDDEN_IN_LINES if lines else _FORBIDDEN).search(text)
    if found:
        character = f"U+{ord(found[0]):04X}"
        raise InvalidArgument(f"character {found.start() + 1} is {character}, a control character", field=field)
    return text


@lru_cache(maxsize=256)
def _pattern(pattern: str) -> NamePattern:
    return NamePattern(pattern)
