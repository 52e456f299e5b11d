"""Reads the log of one service into an inbox, for as long as it takes, across outages."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from threading import Lock
from typing import Any, Final, TypeVar

import grpc

from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.service_pb2_grpc import AuditServiceStub
from headrace.errors import (
    FailedPrecondition,
    HeadraceError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    from_rpc_error,
)
from headrace.events.event import EventFilter, event_of
from headrace.events.inbox import Inbox
from headrace.events.merge import Phase
from headrace.events.start import Start

Q = TypeVar("Q")
R = TypeVar("R")
PAGE: Final = 200
MAX_BACKOFF_S: Final = 5.0
_FIRST_BACKOFF_S: Final = 0.1
_FINAL: Final = (FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unauthenticated)
"""What no repeat mends. Anything else is an outage."""

_log = logging.getLogger("headrace.events")


class _Closed(Exception):
    """The inbox is closed."""


class LogReader:
    """Reads the past page by page, then follows; after an outage it begins again where it was.

    Args:
        name: The service.
        log: Its log.
        inbox: Where events go.
        wanted: What is read.
        start: Where to begin when ``position`` is None.
        position: First position wanted, when a cursor knows it.
        expect: Called with the service and the position of each event before it goes into the inbox.
        passed: Called with the service and a position when nothing more comes from before it.
    """

    def __init__(
        self,
        name: str,
        log: AuditServiceStub,
        inbox: Inbox,
        *,
        wanted: EventFilter,
        start: Start,
        position: int | None,
        expect: Callable[[str, int], None],
        passed: Callable[[str, int], None],
    ) -> None:
        self.name = name
        self._log, self._inbox, self._wanted, self._start = log, inbox, wanted, start
        self._expect, self._passed = expect, passed
        self._next = position if position is not None else start.positions.get(name)
        self._call: Any = None  # Any: grpc's calls are iterators that can be cancelled, which its types do not say
        self._calling = Lock()
        self._backoff_s = _FIRST_BACKOFF_S

    def run(self) -> None:
        """Reads until the inbox is closed, or fails it with what can not be mended."""
        while not self._inbox.closed:
            try:
                self._read()
            except (_Closed, grpc.FutureCancelledError):
                return
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
                if isinstance(failure, _FINAL):
                    self._inbox.fail(failure)
                    return
                self._outlast(failure)
            except Exception as error:  # noqa: BLE001 - whoever takes from the inbox shall see it
                self._inbox.fail(error)
                return

    def cancel(self) -> None:
        """Ends the call under way, once the inbox is closed; there is none after it, so that channels may be closed."""
        with self._calling:
            if self._call is not None:
                self._call.cancel()

    def _begin_call(self, method: Callable[[Q], R], request: Q) -> R:
        """Begins a call, unless the inbox is closed: one on a channel that closes meanwhile ends the process."""
        with self._calling:
            if self._inbox.closed:
                raise _Closed
            call = self._call = method(request)
            return call

    def _outlast(self, error: HeadraceError) -> None:
        """Waits before another try."""
        if self._inbox.closed:
            return
        self._inbox.enter(self.name, Phase.AWAY)
        if self._backoff_s == _FIRST_BACKOFF_S:
            _log.warning("the log of %s can not be read and is tried again: %s", self.name, error.message)
        self._inbox.pause(self._backoff_s * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads the tries
        self._backoff_s = min(self._backoff_s * 2, MAX_BACKOFF_S)

    def _read(self) -> None:
        position = self._begin()
        self._backoff_s = _FIRST_BACKOFF_S
        self._inbox.enter(self.name, Phase.HISTORY)
        end = False
        while not end and not self._inbox.closed:
            page = self._page(position, PAGE)
            if page.entries and not self._put(page):
                return
            position = self._next = page.next_position
            self._passed(self.name, position)
            end = page.end_of_log
        self._follow(position)

    def _follow(self, position: int) -> None:
        self._inbox.enter(self.name, Phase.LIVE)
        request = service.FollowLogRequest(
            from_position=position, stream_prefix=self._wanted.stream_prefix, types=self._wanted.types
        )
        for answer in self._begin_call(self._log.FollowLog, request):
            if not self._put(answer):
                return
            self._next = answer.entries[-1].position + 1

    def _put(self, answer: service.ReadLogResponse | service.FollowLogResponse) -> bool:
        for entry in answer.entries:
            self._expect(self.name, entry.position)
        return self._inbox.put(self.name, [event_of(entry, self.name) for entry in answer.entries])

    def _begin(self) -> int:
        """The first position wanted; found once, kept from then on.

        Raises:
            FailedPrecondition: the cursor is beyond the log's end, so it is the cursor of another platform.
        """
        last = self._begin_call(self._log.GetLogStatus.future, service.GetLogStatusRequest()).result().last_position
        if self._next is None:
            self._next = self._started(last)
            self._passed(self.name, self._next)
        if self._next > last + 1:
            message = (
                f"the log of {self.name} ends at {last}, before position {self._next}: was the platform made anew?"
            )
            raise FailedPrecondition(message, field="cursor", reason="CURSOR_BEYOND_LOG")
        return self._next

    def _started(self, last: int) -> int:
        if self._start.now:
            return last + 1
        if self._start.moment is None:
            return 1
        request = service.ReadLogRequest(page_size=1)
        request.from_time.FromDatetime(self._start.moment)
        page = self._read_log(request)
        return page.entries[0].position if page.entries else page.next_position

    def _page(self, position: int, size: int) -> service.ReadLogResponse:
        request = service.ReadLogRequest(
            from_position=position,
            page_size=size,
            stream_prefix=self._wanted.stream_prefix,
            types=self._wanted.types,
        )
        return self._read_log(request)

    def _read_log(self, request: service.ReadLogRequest) -> service.ReadLogResponse:
        return self._begin_call(self._log.ReadLog.future, request).result()
