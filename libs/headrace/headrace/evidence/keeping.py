"""Checkpoints that were kept somewhere, and the keys that were kept with them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.connection import Connection
from headrace.errors import FailedPrecondition, InvalidArgument, NotConnected
from headrace.verifier import CanNotCheck, Checkpoint, Key, NotProved, checkpoints_in, keys_of, notes_in

PLATFORM: Final = "the platform"
TOPIC: Final = "headrace.audit.checkpoints.v1"
KEYS_FILE: Final = "keys"
"""Name of the file, in the folder of a log, that holds the keys that signed it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint and where it was found: ``the platform``, ``the topic``, or the name of a file or folder."""

    checkpoint: Checkpoint
    where: str

    @property
    def outside(self) -> bool:
        """Whether it comes from another place than the platform's own database."""
        return self.where != PLATFORM

    @property
    def said(self) -> str:
        """Which one it is, for a person."""
        when = f", signed {self.checkpoint.made_at}" if self.checkpoint.made_at else ""
        return f"the checkpoint of size {self.checkpoint.size} in {self.where}{when}"


def read_kept(where: str, connection: Connection) -> tuple[list[Kept], list[Key]]:
    """The checkpoints of a folder, a file or the topic (``topic``), and the keys that lie in a folder with them.

    Raises:
        InvalidArgument: There is no such place, or it holds no checkpoint.
        NotConnected, FailedPrecondition: Kafka is not known here, or can not be read.
    """
    if where == "topic":
        found = [Kept(each, "the topic") for each in _parsed(_notes_of_topic(connection))]
        keys = list[Key]()
    else:
        path = Path(where)
        try:
            found = [Kept(each, where) for each in checkpoints_in(path)]
            files = sorted(path.rglob(KEYS_FILE)) if path.is_dir() else []
            keys = keys_of([str(file) for file in files]) if files else []
        except CanNotCheck as error:
            raise InvalidArgument(str(error), field="against") from error
    if not found:
        raise InvalidArgument(f"{where} holds no checkpoints", field="against")
    return found, keys


def _parsed(texts: Sequence[str]) -> list[Checkpoint]:
    found: list[Checkpoint] = []
    for text in texts:
        for note in notes_in(text):
            try:
                found.append(Checkpoint.parse(note))
            except NotProved:
                continue
    return found


def _notes_of_topic(connection: Connection) -> list[str]:
    try:
        from headrace.kafka.topics import read_topic  # noqa: PLC0415 - aiokafka is an extra
    except ImportError as error:
        message = "reading a topic needs aiokafka: install headrace[kafka]"
        raise FailedPrecondition(message, reason="AIOKAFKA_MISSING") from error
    if not connection.kafka_bootstrap:
        raise NotConnected("nothing is known of Kafka: set HEADRACE_KAFKA_BOOTSTRAP", reason="KAFKA_UNKNOWN")
    return [value.decode(errors="replace") for value in asyncio.run(read_topic(connection.kafka_bootstrap, TOPIC))]
