"""Ids made of names that others chose."""

from __future__ import annotations

import hashlib
import re
from typing import Final
from uuid import UUID, uuid5

_UNFIT: Final = re.compile(r"[/\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
_STRANGERS: Final = UUID("6f9619ff-8b86-5d01-b42d-00c04fc964ff")


def experiment_id(display_name: str) -> str:
    """The id of an experiment's resource name, made of its name for people: the same, where it may be one."""
    fit = _UNFIT.sub("-", display_name).strip()[:200].strip()
    if fit == display_name and fit not in (".", ".."):
        return fit
    digest = hashlib.sha256(display_name.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{fit or 'experiment'}-{digest}"


def run_uuid(given: str) -> UUID:
    """The UUID that a run's id is, or one made of it where it is none."""
    try:
        found = UUID(given)
    except ValueError:
        found = None
    if found is None or given not in (found.hex, str(found)) or found.int == 0:
        return uuid5(_STRANGERS, given)
    return found
