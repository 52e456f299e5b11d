"""A run as it goes on, as server-sent events: its state, its metrics, what it writes; resumed where a client left off.

What a run writes comes whole: a client that is slow slows its own stream down, through gRPC to the store. Its state and
metrics are told as they are when the client can take them; states that were passed over meanwhile are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import grpc
import orjson
from google.protobuf.timestamp_pb2 import Timestamp
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import OUTPUT_STREAM_STDERR, MetricSummary, OutputChunk, Run, RunStatus
from headrace_gateway.live import Hub
from headrace_gateway.platform import Services
from headrace_kit.errors import InvalidArgument, ResourceExhausted
from headrace_kit.metrics import WATCH_STATES_SKIPPED

MOST: Final = 512
"""Streams of all clients."""
MOST_EACH: Final = 64
"""Streams of one client."""
MAX_LAST_BYTES: Final = 16 * 1024 * 1024
_WAITING: Final = 2
"""Answers of the tracker, of at most about 1 MiB each, that wait for a client."""
_ALIVE_S: Final = 15.0
"""How often a silent stream says that it is alive."""
_DIGITS: Final = 18
Metadata = Sequence[tuple[str, str]]


def place_of(text: str) -> int:
    """Where a stream goes on: the id of an event, which is the moment of the last output, microseconds since 1970.

    0 for an empty text. Raises InvalidArgument.
    """
    if text and not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise InvalidArgument("give the id of an event of this stream, such as 1735689600000000", field="Last-Event-ID")
    return int(text or 0)


class Watches:
    """Opens streams, at most ``MOST`` and for one client ``MOST_EACH``."""

    def __init__(self, services: Services, hub: Hub) -> None:
        self._services, self._hub = services, hub
        self._open: Counter[str] = Counter()

    async def open(
        self, run: str, *, client: str, after_us: int, last_bytes: int = 0, metadata: Metadata = ()
    ) -> Response:
        """The stream of a run.

        Args:
            run: Resource name.
            client: Who asks; streams are counted by it.
            after_us: Where it goes on: see ``place_of``.
            last_bytes: Of what was written before, only about so many bytes of the end; 0 for all.
            metadata: Goes with each call to the tracker.

        Raises:
            ResourceExhausted: Too many are open.
            grpc.aio.AioRpcError: The tracker refuses.
        """
        if self._open.total() >= MOST or self._open[client] >= MOST_EACH:
            raise ResourceExhausted(f"at most {MOST_EACH} streams of a client, {MOST} in all", reason="WATCHES_FULL")
        with contextlib.ExitStack() as held:
            held.callback(self._forget, client)
            self._open[client] += 1
            watch = _Watch(self._services.tracking, run, after_us, metadata)
            held.callback(watch.close)
            await watch.begin(last_bytes)
            return _Stream(watch.events(self._hub.ended), held.pop_all())

    def _forget(self, client: str) -> None:
        self._open[client] -= 1
        self._open += Counter()  # drops those who have none


class _Stream(StreamingResponse):
    """Lets go of what it holds when it was sent, or could not be."""

    def __init__(self, events: AsyncIterator[bytes], held: contextlib.ExitStack) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


class _Watch:
    """One run for one client: follows both calls of the tracker and tells what came of them."""

    def __init__(self, tracking: Any, run: str, after_us: int, metadata: Metadata) -> None:  # noqa: ANN401 - a stub
        self._tracking, self._run, self._after_us, self._metadata = tracking, run, after_us, metadata
        self._state: Run | None = None
        self._told: dict[str, MetricSummary] = {}
        self._skipped = 0
        self._output: asyncio.Queue[Sequence[OutputChunk]] = asyncio.Queue(_WAITING)
        self._news = asyncio.Event()
        self._states = tracking.WatchRun(service.WatchRunRequest(run=run), metadata=metadata)
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, last_bytes: int) -> None:
        """Waits for the tracker's first answers. Raises AioRpcError."""
        self._take((await self._states.read()).run)
        after_us = self._after_us
        if last_bytes and not after_us:
            asked = service.ReadOutputRequest(run=self._run, last_bytes=last_bytes)
            found = await self._tracking.ReadOutput(asked, metadata=self._metadata)
            after_us = found.next_after_us
            if found.chunks:
                self._output.put_nowait(found.chunks)
        following = service.FollowOutputRequest(run=self._run, after_us=after_us)
        written = self._tracking.FollowOutput(following, metadata=self._metadata)
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._follow(written))]

    def close(self) -> None:
        """Ends the calls."""
        self._states.cancel()
        for each in self._tasks:
            each.cancel()

    async def events(self, ended: asyncio.Event) -> AsyncIterator[bytes]:
        """Events until the run has ended and all of it was told, a call breaks off, or the gateway stops."""
        stop = asyncio.create_task(ended.wait())
        stop.add_done_callback(lambda _: self._news.set())
        try:
            yield b"retry: 1000\n\n"
            while not ended.is_set():
                self._news.clear()
                over = all(each.done() for each in self._tasks)
                broken = any(each.done() and each.exception() for each in self._tasks)
                while not self._output.empty():
                    yield self._told_output(self._output.get_nowait())
                if self._state is not None:
                    for event in self._told_state(self._state):
                        yield event
                if broken:
                    return
                if over:
                    yield _event("end", self._after_us, {})
                    return
                if not await self._woken():
                    yield b": still here\n\n"
        finally:
            stop.cancel()

    async def _woken(self) -> bool:
        try:
            async with asyncio.timeout(_ALIVE_S):
                return await self._news.wait()
        except TimeoutError:
            return False

    async def _watch(self) -> None:
        try:
            while (answer := await self._states.read()) is not grpc.aio.EOF:
                self._take(answer.run)
        finally:
            self._news.set()

    async def _follow(self, written: Any) -> None:  # noqa: ANN401 - a call of grpc
        try:
            async for answer in written:
                await self._output.put(answer.chunks)
                self._news.set()
        finally:
            written.cancel()
            self._news.set()

    def _take(self, run: Run) -> None:
        if self._state is not None:
            self._skipped += 1
            WATCH_STATES_SKIPPED.inc()
        self._state = run
        self._news.set()

    def _told_output(self, chunks: Sequence[OutputChunk]) -> bytes:
        self._after_us = chunks[-1].time_us
        return _event("output", self._after_us, {"chunks": [_chunk(each) for each in chunks]})

    def _told_state(self, run: Run) -> Iterator[bytes]:
        self._state, skipped, self._skipped = None, self._skipped, 0
        fresh = {key: each for key, each in run.metrics.items() if self._told.get(key) != each}
        self._told |= fresh
        if fresh:
            metrics = {key: _summary(each) for key, each in sorted(fresh.items())}
            yield _event("metrics", self._after_us, {"metrics": metrics})
        status = {
            "run": run.name,
            "status": RunStatus.Name(run.status).removeprefix("RUN_STATUS_"),
            "start_time": _time(run.start_time),
            "end_time": _time(run.end_time),
            "revision": run.revision,
            "skipped": skipped,
        }
        yield _event("status", self._after_us, status)


def _event(kind: str, after_us: int, data: object) -> bytes:
    return b"event: %s\nid: %s\ndata: %s\n\n" % (kind.encode(), str(after_us).encode(), orjson.dumps(data))


def _chunk(chunk: OutputChunk) -> dict[str, object]:
    return {
        # As text: numbers of JavaScript end at 2^53.
        "time_us": str(chunk.time_us),
        "stream": "stderr" if chunk.stream == OUTPUT_STREAM_STDERR else "stdout",
        "text": chunk.content.decode(errors="replace"),
        "left_out_bytes": chunk.left_out_bytes,
    }


def _summary(summary: MetricSummary) -> dict[str, object]:
    numbers = {name: _number(getattr(summary, name)) for name in ("last", "min", "max")}
    return {**numbers, "count": summary.count, "step": summary.last_step, "time": _time(summary.last_time)}


def _number(value: float) -> float | str:
    """A number as JSON can have it; NaN and infinities as protobuf's JSON writes them."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _time(stamp: Timestamp) -> str | None:
    return stamp.ToJsonString() if stamp.seconds else None
