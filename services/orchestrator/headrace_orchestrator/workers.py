"""The workers as the leader knows them: who is there, what they hold, what is to be told to them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field

from headrace.api.orchestrator.v1.service_pb2 import Lease, LogAck, WorkResponse

MAX_RESPONSE_BYTES = 16 * 1024 * 1024
"""Leases that carry large arguments are told apart in several messages."""


class Outbox:
    """What is to be sent on one stream. Everything that gathers while a message is written goes in the next one."""

    def __init__(self, lease_s: float) -> None:
        self._next = WorkResponse(lease_s=lease_s)
        self._leases: list[Lease] = []
        self._filled = asyncio.Event()
        self._filled.set()
        self.closed = asyncio.Event()

    def lease(self, lease: Lease) -> None:
        """Gives a step to the worker."""
        self._leases.append(lease)
        self._filled.set()

    def acknowledge(self, token: int) -> None:
        """Lets the worker forget a result."""
        self._next.acknowledged_tokens.append(token)
        self._filled.set()

    def cancel(self, token: int) -> None:
        """Has the worker end a step."""
        self._next.cancelled_tokens.append(token)
        self._filled.set()

    def answer(self, beat: int, logs: Iterable[LogAck]) -> None:
        """Answers a heartbeat and logs."""
        self._next.beat = beat or self._next.beat
        self._next.log_acks.extend(logs)
        self._filled.set()

    def close(self) -> None:
        """Ends the stream."""
        self.closed.set()
        self._filled.set()

    async def messages(self) -> AsyncIterator[WorkResponse]:
        """The messages, until ``close``."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            if self.closed.is_set():
                return
            message, self._next = self._next, WorkResponse()
            size = 0
            while self._leases and (not size or size + self._leases[0].ByteSize() < MAX_RESPONSE_BYTES):
                lease = self._leases.pop(0)
                size += lease.ByteSize()
                message.leases.append(lease)
            if self._leases:
                self._filled.set()
            yield message


@dataclass(slots=True)
class Worker:
    """A worker process, connected or not.

    Attributes:
        id: UUID, made at its start.
        capacity: Steps it runs at a time; 0 until it has said so to this leader.
        slots: Tokens that take its places: given to it and not known to have ended.
        reserved: Those of them that are being written to the log.
        reported: Tokens whose results are being written to the log.
        heard: When it was heard last, monotonic seconds.
        outbox: Its stream; None while it is not connected.
        draining: It takes no more leases.
    """

    id: str
    heard: float
    capacity: int = 0
    slots: set[int] = field(default_factory=set[int])
    reserved: set[int] = field(default_factory=set[int])
    reported: set[int] = field(default_factory=set[int])
    outbox: Outbox | None = None
    draining: bool = False

    @property
    def free(self) -> int:
        """Places for further leases now."""
        if self.outbox is None or self.draining:
            return 0
        return max(0, self.capacity - len(self.slots))


class Workers:
    """All workers of the leader.

    Args:
        lease_s: How long a worker may be silent before it ends its steps. Half of it again passes before they are given
            to others, so that both never run at once.
        clock: Monotonic seconds.
    """

    def __init__(self, lease_s: float, clock: Callable[[], float]) -> None:
        self.lease_s = lease_s
        self._clock = clock
        self._known: dict[str, Worker] = {}

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._known.values()))

    def find(self, id: str) -> Worker | None:
        """A worker that is known."""
        return self._known.get(id)

    def get(self, id: str) -> Worker:
        """A worker; one that was not known is taken to be heard just now."""
        return self._known.setdefault(id, Worker(id, self._clock()))

    def forget(self, worker: Worker) -> None:
        """Nothing is expected of a worker any more."""
        self._known.pop(worker.id, None)
        if worker.outbox is not None:
            worker.outbox.close()

    def connect(self, id: str, capacity: int) -> tuple[Worker, Outbox]:
        """A worker dialled in; its older stream, if any, ends."""
        worker = self.get(id)
        if worker.outbox is not None:
            worker.outbox.close()
        worker.capacity, worker.heard, worker.draining = capacity, self._clock(), False
        worker.outbox = Outbox(self.lease_s)
        return worker, worker.outbox

    def disconnect(self, worker: Worker, outbox: Outbox) -> None:
        """A stream ended; the worker's leases go on."""
        if worker.outbox is outbox:
            worker.outbox = None

    def heard(self, worker: Worker) -> None:
        """A worker said something."""
        worker.heard = self._clock()

    @property
    def free(self) -> int:
        """Places of all workers together."""
        return sum(each.free for each in self._known.values())

    def most_free(self) -> Worker | None:
        """The worker with the most places, None when all are taken."""
        best = max(self._known.values(), key=lambda each: each.free, default=None)
        return best if best is not None and best.free else None

    def silent(self) -> list[Worker]:
        """Workers whose leases are over."""
        latest = self._clock() - 1.5 * self.lease_s
        return [each for each in self._known.values() if each.heard < latest]

    def close(self) -> None:
        """Ends all streams: the workers dial in again, to whoever leads then."""
        for worker in self:
            self.forget(worker)
