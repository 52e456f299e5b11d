"""Live updates: the services' logs, followed once and handed to every open page."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import grpc
import structlog

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.audit.v1.service_pb2 import FollowLogRequest
from headrace_gateway.platform import Services

_log = structlog.get_logger(__name__)
QUEUE: Final = 1000
"""Events that may wait for one page; a page that falls behind is told to load anew."""
_PAUSE_S: Final = 1.0


class Hub:
    """Follows the logs and feeds the pages."""

    def __init__(self, services: Services, prefix: str) -> None:
        self._services, self._prefix = services, prefix
        self._pages: set[asyncio.Queue[LogEntry | None]] = set()

    async def run(self) -> None:
        """Follows every log until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name in self._services.names:
                tasks.create_task(self._follow(name), name=f"follow-{name}")
            if not self._services.names:
                await asyncio.Event().wait()

    async def entries(self) -> AsyncIterator[LogEntry | None]:
        """Events as they come; None when some were left out."""
        queue: asyncio.Queue[LogEntry | None] = asyncio.Queue(QUEUE)
        self._pages.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._pages.discard(queue)

    async def _follow(self, name: str) -> None:
        position = -1
        while True:
            try:
                request = FollowLogRequest(from_position=position, stream_prefix=self._prefix)
                async for response in self._services.log(name).FollowLog(request):
                    for entry in response.entries:
                        position = entry.position + 1
                        self._hand_out(entry)
            except grpc.aio.AioRpcError as error:
                _log.info("log_not_reachable", source=name, code=error.code().name)
            await asyncio.sleep(_PAUSE_S)

    def _hand_out(self, entry: LogEntry) -> None:
        for queue in self._pages:
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(entry)
