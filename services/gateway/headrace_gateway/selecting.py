"""Which runs a page is about: those chosen one by one, or all that a search finds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import Run
from headrace_gateway.platform import Platform

PAGE: Final = 1000
"""Runs asked for at once."""
MOST: Final = 10_000
"""Runs of one selection."""
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Selection:
    """Runs by id, or when there are none all those of a search, in its order.

    Attributes:
        ids: Chosen runs.
        filter: Conditions in the search language.
        experiment: Id of the only experiment; empty for all.
        order: Order in the search language.
    """

    ids: Sequence[str] = field(default=())
    filter: str = ""
    experiment: str = ""
    order: str = ""

    @staticmethod
    def of(query: QueryParams) -> Selection:
        """Reads an address: ``run`` once for each run, or several with commas between."""
        ids = dict.fromkeys(part for each in query.getlist("run") for part in each.split(",") if part)
        return Selection(
            tuple(ids)[:MOST], query.get("filter", ""), query.get("experiment", ""), query.get("order", "")
        )

    @property
    def query(self) -> str:
        """As an address has it."""
        if self.ids:
            return urlencode({"run": ",".join(self.ids)}, safe=",")
        pairs = {"filter": self.filter, "experiment": self.experiment, "order": self.order}
        return urlencode({name: value for name, value in pairs.items() if value})

    def experiments(self, platform: Platform) -> list[str]:
        """Resource names of the only experiments; empty for all."""
        return [f"{platform.parent}/experiments/{self.experiment}"] if self.experiment else []

    async def names(self, platform: Platform, *, most: int = MOST) -> list[str]:
        """Resource names of the runs, at most so many."""
        if self.ids:
            return [f"{platform.parent}/runs/{each}" for each in self.ids[:most]]
        return [run.name for run in await self._search(platform, most=most, fields=["name"])]

    async def runs(self, platform: Platform, *, most: int = MOST, fields: Sequence[str] = ()) -> list[Run]:
        """The runs, at most so many, with some fields or all. Raises AioRpcError when a chosen one is not there."""
        if not self.ids:
            return await self._search(platform, most=most, fields=fields)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def get(run_id: str) -> Run:
            request = service.GetRunRequest(name=f"{platform.parent}/runs/{run_id}")
            request.read_mask.paths.extend(fields)
            async with gate:
                found: Run = (await platform.read.tracking.GetRun(request)).run
            return found

        return list(await asyncio.gather(*(get(each) for each in self.ids[:most])))

    async def _search(self, platform: Platform, *, most: int, fields: Sequence[str]) -> list[Run]:
        found: list[Run] = []
        request = service.SearchRunsRequest(
            parent=platform.parent,
            filter=self.filter,
            order_by=self.order,
            experiments=self.experiments(platform),
            page_size=min(PAGE, most),
        )
        request.read_mask.paths.extend(fields)
        while len(found) < most:
            page = await platform.read.tracking.SearchRuns(request)
            found.extend(page.runs)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        return found[:most]
