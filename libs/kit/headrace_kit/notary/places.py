"""Where checkpoints go besides the database. Each gets every one it must have at least once, in order of size."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from headrace.evidence.keeping import KEYS_FILE
from headrace.verifier import Checkpoint, Key, checkpoints_in
from headrace_kit.log import CHECKPOINTS, Log, LogProducer, LogUnavailable, OutgoingRecord
from headrace_kit.objects import ObjectStore

OBJECTS_PROJECT: Final = "_checkpoints"
"""Prefix of their keys in the object store; no project's id begins so."""
OBJECTS_EVERY_S: Final = 60.0
MEDIA_TYPE: Final = "text/plain; charset=utf-8"


class Place(Protocol):
    """One place for the checkpoints of one log. For one task at a time.

    Attributes:
        name: For marks, metrics and the log.
        every_s: Least time between two visits.
        newest_only: Whether those in between may be left out; each speaks for all before it.
    """

    name: str
    every_s: float
    newest_only: bool

    async def put(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Stores them; a repeat does no harm.

        Raises:
            KitError, OSError: Some of them may be there and some not.
        """
        ...

    async def newest(self) -> Checkpoint | None:
        """The largest that lies there, where the place can be asked; else None. Raises as ``put``."""
        ...

    async def close(self) -> None:
        """Lets go of it."""
        ...


class TopicPlace:
    """The topic ``headrace.audit.checkpoints.v1``: the note as value, the log's name as key."""

    name = "topic"
    every_s = 0.0
    newest_only = False

    def __init__(self, log: Log) -> None:
        self._log = log
        self._producer: LogProducer | None = None

    async def put(self, checkpoints: Sequence[Checkpoint]) -> None:
        """As ``Place.put``."""
        left = [OutgoingRecord(each.origin.encode(), each.note.encode()) for each in checkpoints]
        try:
            producer = self._producer = self._producer or await self._log.open_producer()
            while left:
                taken = (await producer.append(CHECKPOINTS, {0: left}))[0]
                if not taken:
                    raise LogUnavailable("Kafka took no checkpoint")
                left = left[taken:]
        except LogUnavailable:
            await self.close()
            raise

    async def newest(self) -> Checkpoint | None:
        """None: a topic is not asked for one record."""
        return None

    async def close(self) -> None:
        """As ``Place.close``."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(LogUnavailable):
                await producer.close()


class ObjectsPlace:
    """The object store, below ``_checkpoints/``: one object each, at most one a minute."""

    name = "objects"
    every_s = OBJECTS_EVERY_S
    newest_only = True

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def put(self, checkpoints: Sequence[Checkpoint]) -> None:
        """As ``Place.put``."""
        for each in checkpoints:
            await self._objects.put(OBJECTS_PROJECT, each.note.encode(), MEDIA_TYPE)

    async def newest(self) -> Checkpoint | None:
        """None: what lies there is found by its digest alone."""
        return None

    async def close(self) -> None:
        """Nothing: the store is its owner's."""


class FolderPlace:
    """A folder, best of another host: for each log one file a day that only grows, and the file ``keys``.

    Args:
        folder: It must exist: a mount that is missing is no place.
        source: The log.
        key: What signs it.
    """

    name = "folder"
    every_s = 0.0
    newest_only = False

    def __init__(self, folder: Path, source: str, key: Key) -> None:
        self._folder, self._source, self._key = folder, source, str(key)

    async def put(self, checkpoints: Sequence[Checkpoint]) -> None:
        """As ``Place.put``."""
        await asyncio.to_thread(self._put, checkpoints)

    async def newest(self) -> Checkpoint | None:
        """The largest in the files of the last day."""
        return await asyncio.to_thread(self._newest)

    async def close(self) -> None:
        """Nothing is held."""

    @property
    def _own(self) -> Path:
        return self._folder / self._source.replace("/", "-")

    def _put(self, checkpoints: Sequence[Checkpoint]) -> None:
        if not self._folder.is_dir():
            raise NotADirectoryError(f"there is no folder {self._folder}")
        self._own.mkdir(exist_ok=True)
        days: dict[str, str] = {}
        for each in checkpoints:
            day = each.made_at[:10]
            days[day] = days.get(day, "") + each.note + "\n"
        keys = self._own / KEYS_FILE
        if not keys.is_file() or self._key not in keys.read_text(encoding="utf-8").splitlines():
            _append(keys, f"{self._key}\n")
        for day, text in days.items():
            _append(self._own / f"{day}.checkpoints", text)

    def _newest(self) -> Checkpoint | None:
        files = sorted(self._own.glob("*.checkpoints")) if self._own.is_dir() else []
        found = checkpoints_in(files[-1]) if files else []
        return max((each for each in found if each.origin == self._source), key=lambda each: each.size, default=None)


def _append(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    with open(descriptor, "ab") as file:  # noqa: PTH123 - a descriptor has no path
        # A line that a crash cut off ends here, and spoils no other.
        file.write((f"\n\n{text}" if file.tell() else text).encode())
        file.flush()
        os.fsync(file.fileno())
