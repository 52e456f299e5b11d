"""A reader makes no call once it was cancelled: its channel may be closed then."""

from __future__ import annotations

from threading import Event, Thread
from typing import Any

import grpc

from headrace.api.audit.v1 import service_pb2 as service
from headrace.events.event import EventFilter
from headrace.events.inbox import Inbox
from headrace.events.reader import LogReader
from headrace.events.start import Start


class Call:
    """An answer that comes when it is cancelled, or was wanted."""

    def __init__(self, *, comes_late: bool) -> None:
        self._comes_late = comes_late
        self._over = Event()
        self.waited_for = Event()

    def cancel(self) -> None:
        self._over.set()

    def result(self) -> service.GetLogStatusResponse:
        self.waited_for.set()
        assert self._over.wait(20)
        if self._comes_late:  # the answer was quicker than the cancellation
            return service.GetLogStatusResponse(last_position=5)
        raise grpc.FutureCancelledError


class Log:
    """A log that says nothing in time."""

    def __init__(self, *, comes_late: bool) -> None:
        self.call = Call(comes_late=comes_late)
        self.calls: list[str] = []
        self.GetLogStatus = self

    def future(self, request: object) -> Call:
        self.calls.append(type(request).__name__)
        return self.call


def test_no_call_follows_a_cancellation() -> None:
    for comes_late in (False, True):
        log: Any = Log(comes_late=comes_late)
        inbox = Inbox(["registry"], capacity=10, window_s=1.0)
        reader = LogReader(
            "registry",
            log,
            inbox,
            wanted=EventFilter(),
            start=Start(),
            position=None,
            expect=lambda _name, _position: None,
            passed=lambda _name, _position: None,
        )
        thread = Thread(target=reader.run)
        thread.start()
        assert log.call.waited_for.wait(20)

        inbox.close()
        reader.cancel()
        thread.join(20)

        assert not thread.is_alive()
        assert log.calls == ["GetLogStatusRequest"]
        assert inbox.take(timeout_s=0) is None
