"""Resource names and the ids in them."""

import re
from dataclasses import dataclass
from typing import Final

from headrace_kit.errors import InvalidArgument

MAX_NAME: Final = 500
_ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,98}[a-z0-9])?")
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A form of resource name, such as ``projects/{project}/models/{model}``.

    An id is 1 to 100 characters of ``a-z 0-9 . _ -``, first and last a letter or digit. A placeholder in ``free`` may hold
    any text of 1 to 250 characters without ``/`` and control characters.
    """

    pattern: str
    free: tuple[str, ...] = ()

    def parse(self, name: str, *, field: str) -> dict[str, str]:
        """The ids by placeholder. Raises InvalidArgument naming the field and the form."""
        parts, wanted = name.split("/"), self.pattern.split("/")
        if len(name) > MAX_NAME or len(parts) != len(wanted):
            raise InvalidArgument(f"give a name of the form {self.pattern}", field=field)
        found: dict[str, str] = {}
        for part, want in zip(parts, wanted, strict=True):
            match = _PLACEHOLDER.fullmatch(want)
            if match is None:
                if part != want:
                    raise InvalidArgument(f"give a name of the form {self.pattern}", field=field)
                continue
            key = match.group(1)
            if key in self.free:
                require_text(part, field=field, most=250)
            elif not _ID.fullmatch(part):
                raise InvalidArgument(
                    f"{key} is 1 to 100 characters of a-z 0-9 . _ - with a letter or digit at both ends", field=field
                )
            found[key] = part
        return found


PROJECT: Final = NamePattern("projects/{project}")
EXPERIMENT: Final = NamePattern("projects/{project}/experiments/{experiment}", free=("experiment",))
RUN: Final = NamePattern("projects/{project}/runs/{run}")
MODEL: Final = NamePattern("projects/{project}/models/{model}")
VERSION: Final = NamePattern("projects/{project}/models/{model}/versions/{version}")
PIPELINE: Final = NamePattern("projects/{project}/pipelines/{pipeline}")
PIPELINE_RUN: Final = NamePattern("projects/{project}/pipelineRuns/{run}")
ENDPOINT: Final = NamePattern("projects/{project}/endpoints/{endpoint}")
MONITOR: Final = NamePattern("projects/{project}/monitors/{monitor}")
ALERT: Final = NamePattern("projects/{project}/alerts/{alert}")


def parse_id(text: str, *, field: str) -> str:
    """An id that stands alone, such as that of a schedule. Raises InvalidArgument."""
    if not _ID.fullmatch(text):
        raise InvalidArgument(
            "an id is 1 to 100 characters of a-z 0-9 . _ - with a letter or digit at both ends", field=field
        )
    return text


def require_text(text: str, *, field: str, least: int = 1, most: int, lines: bool = False) -> str:
    """A text within its limits and without control characters (``lines`` lets tabs and line ends in).

    Raises:
        InvalidArgument: Names the field and the limit.
    """
    if not least <= len(text) <= most:
        bounds = f"{least} to {most}" if least else f"at most {most}"
        raise InvalidArgument(f"give {bounds} characters; these are {len(text)}", field=field)
    for at, character in enumerate(text):
        if (character < " " or character == "\x7f") and not (lines and character in "\t\r\n"):
            raise InvalidArgument(f"character {at + 1} is a control character", field=field)
    return text
