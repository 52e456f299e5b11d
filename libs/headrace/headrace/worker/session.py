"""The worker: dials the orchestrator, runs the steps it is given, and repeats results until they are acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import grpc

from headrace.api.orchestrator.v1.service_pb2 import Lease, WorkerHello, WorkRequest, WorkResponse
from headrace.api.orchestrator.v1.service_pb2_grpc import WorkerServiceStub
from headrace.channel import STREAMS
from headrace.worker.attempt import CANCELLED, CHUNK_BYTES, WORKER_LOST, Attempt
from headrace.worker.forks import Template

LOG_INTERVAL_S: Final = 0.1
REPEAT_S: Final = 2.0
RECONNECT_S: Final = (0.1, 0.2, 0.5, 1.0)
FIRST_LEASE_S: Final = 5.0
_log = logging.getLogger("headrace.worker")


class Worker:
    """One worker. It outlives its connections: a new one goes on with the steps under way.

    Args:
        address: ``host:port`` of the orchestrator.
        token: Reads the token to call it with.
        worker_id: UUID, made anew at each start of a process.
        capacity: Steps at a time.
        folder: For the steps' folders.
        environment: Of the steps' processes.
    """

    def __init__(
        self,
        address: str,
        token: Callable[[], str],
        *,
        worker_id: str,
        capacity: int,
        folder: Path,
        environment: Mapping[str, str],
    ) -> None:
        self._address, self._token = address, token
        self._worker_id, self._capacity, self._folder = worker_id, capacity, folder
        self._environment = dict(environment)
        self._attempts: dict[int, Attempt] = {}
        self._reported: dict[int, float] = {}
        self._lease_s = FIRST_LEASE_S
        self._beat = 0
        self._beats: dict[int, float] = {}
        self._contact = self._greeted = 0.0
        self._draining = False
        self._template = Template()
        self._wake = asyncio.Event()
        self._fewer = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Runs until cancelled; the steps' processes end with it."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await self._template.start()
                self._tasks.create_task(self._keep_lease())
                await self._dial()
        finally:
            await self._template.close()
            for attempt in self._attempts.values():
                attempt.remove()

    async def drain(self, within_s: float) -> None:
        """Takes no more steps and waits for those under way; those that take longer are ended and given back."""
        self._draining = True
        self._wake.set()
        if not await self._idle(within_s):
            for attempt in self._attempts.values():
                attempt.stop(WORKER_LOST, "the worker was stopped")
            await self._idle(REPEAT_S)

    async def _idle(self, within_s: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._attempts:
                    self._fewer.clear()
                    await self._fewer.wait()
        return not self._attempts

    async def _dial(self) -> None:
        failures = 0
        while True:
            connected = _now()
            try:
                async with grpc.aio.insecure_channel(self._address, options=list(STREAMS)) as channel:
                    await self._talk(WorkerServiceStub(channel))
            except grpc.aio.AioRpcError as error:
                _log.info("no connection: %s %s", error.code().name, error.details())
            failures = 0 if _now() - connected > RECONNECT_S[-1] else failures + 1
            await asyncio.sleep(RECONNECT_S[min(failures, len(RECONNECT_S) - 1)])

    async def _talk(self, stub: WorkerServiceStub) -> None:
        self._beats.clear()
        self._reported.clear()
        metadata = (("authorization", f"Bearer {self._token()}"),)
        # The generated stub is typed for blocking code; on this channel calls are asynchronous.
        call: AsyncIterator[WorkResponse] = stub.Work(self._requests(), metadata=metadata)  # type: ignore[arg-type, assignment]
        async for response in call:
            self._take(response)

    # --- to the orchestrator --------------------------------------------------------------------------------------

    async def _requests(self) -> AsyncIterator[WorkRequest]:
        hello = WorkerHello(worker=self._worker_id, capacity=self._capacity, held_tokens=list(self._attempts))
        request = WorkRequest(hello=hello)
        self._add_beat(request)
        self._greeted = _now()
        yield request
        next_beat = _now() + self._lease_s / 3
        while True:
            timeout_s = min(next_beat - _now(), LOG_INTERVAL_S if self._attempts else self._lease_s / 3)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, timeout_s)):  # wait_for of Python 3.11 may swallow a cancellation
                    await self._wake.wait()
            self._wake.clear()
            request = WorkRequest()
            if _now() >= next_beat:
                self._add_beat(request)
                next_beat = _now() + self._lease_s / 3
            self._add_logs_and_results(request)
            if request.ByteSize():
                request.draining = self._draining
                yield request

    def _add_beat(self, request: WorkRequest) -> None:
        self._beat += 1
        self._beats[self._beat] = _now()
        request.beat = self._beat
        request.held_tokens.extend(self._attempts)
        request.draining = self._draining

    def _add_logs_and_results(self, request: WorkRequest) -> None:
        """What was written since; it counts as sent once it is stored, and goes again until then.

        A result goes with the last piece of its log, or after it.
        """
        for token, attempt in self._attempts.items():
            ended = attempt.result
            chunk = attempt.log_chunk()
            if chunk is not None:
                request.logs.append(chunk)
                if len(chunk.data) == CHUNK_BYTES:
                    continue
            if ended is not None and _now() - self._reported.get(token, -REPEAT_S) >= REPEAT_S:
                self._reported[token] = _now()
                request.results.append(ended)

    # --- from the orchestrator ------------------------------------------------------------------------------------

    def _take(self, response: WorkResponse) -> None:
        if response.lease_s:  # the first message: the greeting was heard
            self._lease_s, self._contact = response.lease_s, self._greeted
        self._contact = self._beats.pop(response.beat, self._contact)
        for ack in response.log_acks:
            attempt = self._attempts.get(ack.token)
            if attempt is not None:
                attempt.log_sent = ack.offset
                self._wake.set()
        for token in response.acknowledged_tokens:
            self._forget(token)
        for token in response.cancelled_tokens:
            self._cancel(token)
        for lease in response.leases:
            self._begin(lease)

    def _begin(self, lease: Lease) -> None:
        if lease.token in self._attempts or self._tasks is None:
            return
        environment = {
            **self._environment,
            "HEADRACE_PIPELINE_RUN": lease.run,
            "HEADRACE_STEP": lease.step,
            "HEADRACE_STEP_TOKEN": str(lease.token),
            "HEADRACE_CAUSATION_ID": lease.causation_id,
            "HEADRACE_CORRELATION_ID": lease.correlation_id,
            "HEADRACE_ON_BEHALF_OF": lease.on_behalf_of,
            "PYTHONUNBUFFERED": "1",
        }
        attempt = Attempt(lease, self._folder / str(lease.token), template=self._template, environment=environment)
        self._attempts[lease.token] = attempt
        self._tasks.create_task(self._carry_out(attempt))

    async def _carry_out(self, attempt: Attempt) -> None:
        await attempt.run()
        self._wake.set()

    def _cancel(self, token: int) -> None:
        attempt = self._attempts.get(token)
        if attempt is None:
            return
        if attempt.result is not None:
            self._forget(token)
        else:
            attempt.stop(CANCELLED, "the orchestrator ended it")

    def _forget(self, token: int) -> None:
        attempt = self._attempts.pop(token, None)
        self._reported.pop(token, None)
        if attempt is not None:
            attempt.remove()
            self._fewer.set()
            self._wake.set()

    async def _keep_lease(self) -> None:
        """Ends the steps when the orchestrator was not heard for so long that it may give them to others."""
        while True:
            await asyncio.sleep(self._lease_s / 10)
            if _now() - self._contact > self._lease_s:
                for attempt in self._attempts.values():
                    attempt.stop(WORKER_LOST, f"no contact with the orchestrator for {self._lease_s:g} s")


def _now() -> float:
    return asyncio.get_running_loop().time()
