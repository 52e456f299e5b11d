"""Cursors: how far a subscriber has come, kept where the next process finds it."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import orjson

from headrace.connection import data_folder
from headrace.errors import FailedPrecondition, InvalidArgument

VERSION: Final = 1
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Cursor(Protocol):
    """Keeps the next position wanted of each service. For one subscription at a time; calls never overlap."""

    def open(self) -> Mapping[str, int]:
        """Takes the cursor and gives what was saved last; empty when nothing was.

        Raises:
            FailedPrecondition: another subscription has it, or it can not be read.
        """
        ...

    def save(self, positions: Mapping[str, int]) -> None:
        """Keeps these; once it returns they outlive the process and the machine.

        Raises:
            OSError: they may not have been kept.
        """
        ...

    def close(self) -> None:
        """Lets go of the cursor; what was saved stays."""
        ...


class FileCursor:
    """A cursor in a JSON file, replaced as a whole and synced to disk; one process at a time (``<path>.lock``)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def open(self) -> Mapping[str, int]:
        """As ``Cursor.open``."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            positions = self._stored()
        except BlockingIOError as error:
            os.close(lock)
            message = f"another subscription uses the cursor {self.path}"
            raise FailedPrecondition(message, field="cursor", reason="CURSOR_IN_USE") from error
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        return positions

    def save(self, positions: Mapping[str, int]) -> None:
        """As ``Cursor.save``."""
        content = orjson.dumps({"version": VERSION, "next": dict(positions)}, option=orjson.OPT_SORT_KEYS)
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("wb") as file:
            file.write(content + b"\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
        sync_folder(self.path.parent)

    def close(self) -> None:
        """As ``Cursor.close``."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _stored(self) -> Mapping[str, int]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        try:
            stored = orjson.loads(content)
            if stored["version"] != VERSION:
                raise ValueError(f"form {stored['version']}")
            return {str(service): int(position) for service, position in stored["next"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"{self.path} is no cursor of this headrace; move it away to begin anew"
            raise FailedPrecondition(message, field="cursor", reason="CURSOR_UNREADABLE") from error


class MemoryCursor:
    """A cursor that ends with the process: for programs that always begin at a given place, and for tests."""

    def __init__(self, positions: Mapping[str, int] | None = None) -> None:
        self.positions: dict[str, int] = dict(positions or {})

    def open(self) -> Mapping[str, int]:
        """As ``Cursor.open``."""
        return dict(self.positions)

    def save(self, positions: Mapping[str, int]) -> None:
        """Keeps these in memory."""
        self.positions = dict(positions)

    def close(self) -> None:
        """Does nothing."""


def cursor_for(name: str, given: Cursor | Path | str | None) -> Cursor:
    """The cursor of a subscription.

    Args:
        name: The subscription's.
        given: A cursor, the path of a file, or None for ``subscribers/<name>.json`` in the data folder.

    Raises:
        InvalidArgument: the name is not 1 to 100 letters, digits and ``. _ -``.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"give 1 to 100 letters, digits and . _ - for a name, not {name!r}", field="name")
    if given is None:
        return FileCursor(data_folder() / "subscribers" / f"{name}.json")
    return FileCursor(Path(given)) if isinstance(given, str | Path) else given


def sync_folder(folder: Path) -> None:
    """Makes a renaming in a folder outlive the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
