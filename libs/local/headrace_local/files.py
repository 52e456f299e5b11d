"""Small files that must be whole or absent: written beside, synced, renamed."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import cast


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data`` with permission bits ``mode``; a reader sees the old bytes or the new ones."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object, *, mode: int = 0o600) -> None:
    """Write ``value`` as indented JSON by :func:`write_atomic`."""
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode(), mode=mode)


def read_json(path: Path) -> dict[str, object] | None:
    """Return the JSON object in ``path``, or ``None`` when there is no such file.

    Raises:
        ValueError: the file holds no JSON object.
    """
    try:
        value: object = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")  # noqa: TRY004 - the file is wrong, not the caller
    return cast("dict[str, object]", value)
