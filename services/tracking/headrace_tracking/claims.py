"""What other services refer to: every SHA-256 that their logs name, in whatever message.

A log is read on from where it was read last, so that a look costs what came since. A digest that stands there for
another reason keeps bytes that could go, never the other way round.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.errors import Unavailable
from headrace_kit.postgres import Database

PAGE: Final = 1000
_SHA256: Final = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


class LogReader(Protocol):
    """Reads the log of a service."""

    async def read(self, from_position: int, limit: int) -> Sequence[ReceivedEvent]:
        """At most ``limit`` events from a position on, none at the end. Raises Unavailable."""
        ...


class Claims:
    """Digests that the logs of other services name.

    Args:
        database: Tracking's.
        readers: The logs, by service.
    """

    def __init__(self, database: Database, readers: Mapping[str, LogReader]) -> None:
        self._database, self._readers = database, readers

    async def catch_up(self) -> None:
        """Reads every log to its end. Raises Unavailable with the name of the service whose log can not be read."""
        for source, reader in self._readers.items():
            try:
                await self._read(source, reader)
            except Unavailable as error:
                raise Unavailable(f"{source}: {error}") from error

    async def _read(self, source: str, reader: LogReader) -> None:
        position: int = await self._database.fetchval(
            "SELECT coalesce(max(position), 0) FROM claims_read WHERE source = $1", source
        )
        while events := await reader.read(position + 1, PAGE):
            position = events[-1].position
            found = sorted({match.decode() for each in events for match in _SHA256.findall(each.data)})
            async with self._database.transaction() as connection:
                await connection.execute(
                    "INSERT INTO claimed_digests SELECT unnest($1::text[]) ON CONFLICT DO NOTHING", found
                )
                await connection.execute(
                    "INSERT INTO claims_read (source, position) VALUES ($1, $2)"
                    " ON CONFLICT (source) DO UPDATE SET position = greatest(claims_read.position, $2)",
                    source,
                    position,
                )
