"""Live updates: the services' logs, followed once and handed to every open page."""

import asyncio
import contextlib
from collections.abc import Iterator
from enum import Enum
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


class Notice(Enum):
    """What a page is told beside events."""

    LOST = "some events were left out"
    END = "nothing more comes: the gateway stops"


Feed = asyncio.Queue[LogEntry | Notice]


class Hub:
    """Follows the logs and feeds the pages."""

    def __init__(self, services: Services, prefix: str) -> None:
        self._services, self._prefix = services, prefix
        self._pages: set[Feed] = set()
        self.ended = asyncio.Event()
        """Set when the gateway stops."""

    async def run(self) -> None:
        """Follows every log until cancelled; then ends the feeds, so that open pages do not hold the stop up."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for name in self._services.names:
                    tasks.create_task(self._follow(name), name=f"follow-{name}")
                await asyncio.Event().wait()
        finally:
            self.ended.set()
            for feed in self._pages:
                push(feed, Notice.END)

    @contextlib.contextmanager
    def feed(self) -> Iterator[Feed]:
        """What one page gets from now on: events as they come."""
        feed: Feed = asyncio.Queue(QUEUE)
        if self.ended.is_set():
            feed.put_nowait(Notice.END)
        self._pages.add(feed)
        try:
            yield feed
        finally:
            self._pages.discard(feed)

    async def _follow(self, name: str) -> None:
        position = -1
        while True:
            try:
                request = FollowLogRequest(from_position=position, stream_prefix=self._prefix)
                async for response in self._services.log(name).FollowLog(request):
                    for entry in response.entries:
                        position = entry.position + 1
                        for feed in self._pages:
                            push(feed, entry)
            except grpc.aio.AioRpcError as error:
                _log.info("log_not_reachable", source=name, code=error.code().name)
            await asyncio.sleep(_PAUSE_S)


def push(feed: Feed, item: LogEntry | Notice) -> None:
    """Puts an item into a feed; one that is full loses what waits there, and says so first."""
    if feed.full():
        while not feed.empty():
            feed.get_nowait()
        feed.put_nowait(Notice.LOST)
    feed.put_nowait(item)
