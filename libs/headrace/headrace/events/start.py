"""Where a subscription begins that has no cursor yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeAlias

from headrace.errors import InvalidArgument

BEGINNING: Final = "beginning"
NOW: Final = "now"

StartLike: TypeAlias = "str | datetime | Mapping[str, int]"
"""``"now"``, ``"beginning"``, a moment (datetime or RFC 3339 text), or the first position wanted of each service."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin: at a moment, at positions, now (neither), or at the beginning (no positions)."""

    moment: datetime | None = None
    positions: Mapping[str, int] = field(default_factory=dict[str, int])
    now: bool = False

    @staticmethod
    def of(given: StartLike) -> Start:
        """A start from what a caller gives; services that ``given`` does not name begin at their first event.

        Raises:
            InvalidArgument: it is none of the forms.
        """
        if isinstance(given, Mapping):
            return Start(positions=_checked(given))
        if given == NOW:
            return Start(now=True)
        if given == BEGINNING:
            return Start()
        return Start(moment=parse_moment(given, name="start"))


def parse_moment(given: str | datetime, *, name: str) -> datetime:
    """A moment in UTC.

    Args:
        given: A datetime with a time zone, or RFC 3339 text such as ``2026-05-03T14:03:00Z``.
        name: Of the argument, for the error.

    Raises:
        InvalidArgument: it is no moment, or has no time zone.
    """
    try:
        moment = datetime.fromisoformat(given) if isinstance(given, str) else given
        zoned = moment.tzinfo is not None
    except (ValueError, AttributeError):
        message = f"give a time such as 2026-05-03T14:03:00Z, not {given!r}"
        raise InvalidArgument(message, field=name) from None
    if not zoned:
        raise InvalidArgument(f"{given} has no time zone; write Z for UTC", field=name)
    return moment.astimezone(UTC)


def _checked(positions: Mapping[str, int]) -> Mapping[str, int]:
    for service, position in positions.items():
        if isinstance(position, bool) or not 1 <= position < 1 << 60:
            raise InvalidArgument(f"give a position from 1, not {position!r}", field=f"start[{service!r}]")
    return dict(positions)
