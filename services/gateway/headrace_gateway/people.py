"""Display names of persons, for pages: events and read models have opaque ids alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import grpc
import structlog

from headrace.api.registry.v1.service_pb2 import ListPersonsRequest

_log = structlog.get_logger(__name__)
EVERY_S: Final = 10.0
"""How long a name may be shown after it was erased."""
_PAGE: Final = 1000
_DEADLINE_S: Final = 5.0


class People:
    """Names by principal, read anew every few seconds; without the registry nobody has one.

    Args:
        persons: The stub of ``PersonService``; None where the registry is not known.
    """

    def __init__(self, persons: Any) -> None:  # noqa: ANN401 - an awaited stub, see platform
        self._persons = persons
        self._names: Mapping[str, str] = {}

    def named(self, principal: str) -> str:
        """What people call a principal; empty when that is not known."""
        return self._names.get(principal, "")

    async def run(self) -> None:
        """Reads names until cancelled."""
        while True:
            if self._persons is not None:
                await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Reads them once; while the registry does not answer, no name is shown."""
        names: dict[str, str] = {}
        request = ListPersonsRequest(page_size=_PAGE)
        try:
            while True:
                page = await self._persons.ListPersons(request, timeout=_DEADLINE_S)
                names |= {each.name: each.display_name for each in page.persons}
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
        except grpc.RpcError as error:
            _log.warning("names_unknown", code=str(error.code()))
            names = {}
        self._names = names
