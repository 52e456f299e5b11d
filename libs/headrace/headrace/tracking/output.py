"""What a program writes to its standard streams, kept by its run.

The tee stands before ``write`` of the stream objects, so that whoever holds one, such as a handler of ``logging``, is
heard too. What subprocesses and C libraries write goes past Python; ``descriptors=True`` hears them by standing between
the process and its file descriptors. Then what was written right before a crash may be lost to the terminal, so it is
only done when asked for.

The training code appends to a queue and goes on. A thread takes what is there, five times a second; what goes over the
room of the queue in between is counted and left out.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final, TextIO, TypeAlias

from headrace.api.tracking.v1.resources_pb2 import (
    OUTPUT_STREAM_STDERR,
    OUTPUT_STREAM_STDOUT,
    OutputChunk,
    OutputStream,
)

INTERVAL_S: Final = 0.2
MAX_CHUNK_BYTES: Final = 65_536
MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
"""What may wait for the thread; more is left out."""
_JOIN_S: Final = 1.0
_STREAMS: Final = (("stdout", 1, OUTPUT_STREAM_STDOUT), ("stderr", 2, OUTPUT_STREAM_STDERR))

Stream: TypeAlias = OutputStream.ValueType
Record = Callable[[Sequence[OutputChunk]], None]


class Output:
    """Hears the standard streams from ``start`` to ``stop``, and hands on what was written, in order, as chunks.

    Args:
        record: Takes the chunks, in a thread.
        descriptors: Whether file descriptors are heard rather than Python's objects.
        interval_s: How long what was written may wait.
    """

    def __init__(self, record: Record, *, descriptors: bool = False, interval_s: float = INTERVAL_S) -> None:
        self._queue = Queue()
        self._record, self._interval_s = record, interval_s
        self._tees: list[_ObjectTee | _DescriptorTee] = []
        self._descriptors = descriptors
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-output", daemon=True)

    def start(self) -> None:
        """Begins to listen. A stream that can not be heard, or is not there, is left alone."""
        for name, descriptor, stream in _STREAMS:
            with suppress(Exception):
                if self._descriptors:
                    self._tees.append(_DescriptorTee(name, descriptor, stream, self._queue))
                else:
                    self._tees.append(_ObjectTee(getattr(sys, name), stream, self._queue))
        self._thread.start()

    def stop(self) -> None:
        """Listens no longer; what was written until now is handed on when it returns."""
        for tee in reversed(self._tees):
            tee.close()
        self._stopping.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self._hand_on()
        self._hand_on(ended=True)

    def _hand_on(self, *, ended: bool = False) -> None:
        chunks = list(self._queue.taken(ended=ended))
        if chunks:
            with suppress(Exception):  # a run that has ended, a full disk: nothing that may stop the program
                self._record(chunks)


class Queue:
    """What was written and is not handed on. No call waits for another, so that signal handlers may write too."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Stream, int, bytes]] = deque()
        self._size = self._left_out = self._owed = self._last_us = 0

    def put(self, stream: Stream, content: bytes) -> None:
        """Takes what was written just now."""
        if self._size + len(content) > MAX_WAITING_BYTES:
            self._left_out += len(content)
            return
        self._size += len(content)
        self._waiting.append((stream, time.time_ns() // 1000, content))

    def taken(self, *, ended: bool = False) -> Iterator[OutputChunk]:
        """Takes everything out, as chunks whose times ascend; what was left out since is told by the next chunk.

        For one thread. When it has ``ended`` an empty line tells what no chunk came after.
        """
        left_out, self._left_out = self._left_out, 0
        gathered: list[bytes] = []
        stream, began_us, size = OUTPUT_STREAM_STDOUT, 0, 0
        for _ in range(len(self._waiting)):
            next_stream, time_us, content = self._waiting.popleft()
            self._size -= len(content)
            if gathered and (next_stream != stream or size + len(content) > MAX_CHUNK_BYTES):
                yield from self._chunks(stream, began_us, b"".join(gathered))
                gathered, size = [], 0
            if not gathered:
                stream, began_us = next_stream, time_us
            gathered.append(content)
            size += len(content)
        if not self._waiting:
            self._size = 0  # what two threads that wrote at once may have miscounted
        if gathered:
            yield from self._chunks(stream, began_us, b"".join(gathered))
        self._owed += left_out
        if ended and self._owed:
            yield from self._chunks(stream, time.time_ns() // 1000, b"\n")

    def _chunks(self, stream: Stream, time_us: int, content: bytes) -> Iterator[OutputChunk]:
        for at in range(0, len(content), MAX_CHUNK_BYTES):
            self._last_us = max(time_us, self._last_us + 1)
            owed, self._owed = self._owed, 0
            yield OutputChunk(
                time_us=self._last_us,
                stream=stream,
                content=content[at : at + MAX_CHUNK_BYTES],
                left_out_bytes=owed,
            )


class _ObjectTee:
    """Stands before ``write`` of a stream object."""

    def __init__(self, target: TextIO, stream: Stream, queue: Queue) -> None:
        self._members = vars(target)
        self._before = self._members.get("write")
        self._is_open = True
        write = target.write

        def heard(text: str) -> int:
            written = write(text)
            if self._is_open and text:
                with suppress(Exception):  # what can not be heard was written all the same
                    queue.put(stream, text.encode(errors="backslashreplace"))
            return written

        self._heard = self._members["write"] = heard

    def close(self) -> None:
        """Takes itself away; where another tee came after it, it stays and hears nothing."""
        self._is_open = False
        if self._members.get("write") is not self._heard:
            return
        if self._before is None:
            del self._members["write"]
        else:
            self._members["write"] = self._before


class _DescriptorTee:
    """Stands between the process and a file descriptor: a pipe, and a thread that hands on what comes through it."""

    def __init__(self, name: str, descriptor: int, stream: Stream, queue: Queue) -> None:
        self._name, self._descriptor, self._stream, self._queue = name, descriptor, stream, queue
        self._own = os.dup(descriptor)
        self._end, writing = os.pipe()
        os.dup2(writing, descriptor)
        os.close(writing)
        self._thread = threading.Thread(target=self._run, name=f"headrace-{name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Gives the descriptor back. A subprocess that still has the pipe is heard no more, but handed on."""
        with suppress(Exception):
            getattr(sys, self._name).flush()
        os.dup2(self._own, self._descriptor)
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while data := os.read(self._end, MAX_CHUNK_BYTES):
            self._queue.put(self._stream, data)
            with suppress(OSError):  # whoever read it is gone
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._own, rest) :]
        os.close(self._end)
        os.close(self._own)
