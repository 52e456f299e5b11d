"""The workers' stream over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc

from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace.api.orchestrator.v1.service_pb2_grpc import WorkerServiceServicer
from headrace_kit.auth import OPERATOR, SERVICE
from headrace_kit.errors import InvalidArgument
from headrace_kit.names import PIPELINE_RUN
from headrace_kit.rpc import parse_uuid, require_role
from headrace_kit.validate import require_range, require_size
from headrace_orchestrator import definitions, domain
from headrace_orchestrator.dispatch import Dispatcher
from headrace_orchestrator.leading import Leader
from headrace_orchestrator.logs import MAX_CHUNK_BYTES, StepLogs
from headrace_orchestrator.workers import Outbox, Worker, Workers

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method
MAX_CAPACITY = 1000
MAX_TOKENS = 10_000
MAX_CHUNKS = 1000
MAX_CLASS_LENGTH = 200
MAX_TOKEN = (1 << 63) - 1


class WorkerServicer(WorkerServiceServicer):
    """Answers workers.

    Args:
        leader: Whose workers they are while it leads.
        logs: Takes what steps write.
    """

    def __init__(self, leader: Leader, logs: StepLogs) -> None:
        self._leader, self._logs = leader, logs

    async def Work(
        self, request_iterator: AsyncIterator[service.WorkRequest], context: Context
    ) -> AsyncIterator[service.WorkResponse]:
        require_role(SERVICE, OPERATOR)
        hello = await anext(request_iterator, service.WorkRequest())
        check_hello(hello)
        scheduler = (await self._leader.lead()).scheduler
        worker, outbox = scheduler.workers.connect(hello.hello.worker, hello.hello.capacity)
        session = _Session(scheduler.workers, scheduler.dispatcher, self._logs, worker, outbox)
        await scheduler.dispatcher.greet(worker, hello.hello.held_tokens)
        reading = asyncio.create_task(session.read(hello, request_iterator))
        reading.add_done_callback(lambda _: outbox.close())
        try:
            async for message in outbox.messages():
                yield message
            if reading.done():
                reading.result()
        finally:
            reading.cancel()
            scheduler.workers.disconnect(worker, outbox)


class _Session:
    """One stream of a worker."""

    def __init__(
        self, workers: Workers, dispatcher: Dispatcher, logs: StepLogs, worker: Worker, outbox: Outbox
    ) -> None:
        self._workers, self._dispatcher, self._logs, self._worker, self._outbox = (
            workers,
            dispatcher,
            logs,
            worker,
            outbox,
        )

    async def read(self, first: service.WorkRequest, requests: AsyncIterator[service.WorkRequest]) -> None:
        await self._take(first)
        async for request in requests:
            check_work(request)
            await self._take(request)

    async def _take(self, request: service.WorkRequest) -> None:
        self._workers.heard(self._worker)
        self._worker.draining = request.draining
        stored = [service.LogAck(token=chunk.token, offset=self._logs.append(chunk)) for chunk in request.logs]
        for result in request.results:
            await self._dispatcher.report(self._worker, result)
        if request.beat:
            self._dispatcher.renew(self._worker, request.held_tokens)
        if request.beat or stored:
            self._outbox.answer(request.beat, stored)


def check_hello(request: service.WorkRequest) -> None:
    """Raises InvalidArgument unless a stream begins as it should."""
    if not request.HasField("hello"):
        raise InvalidArgument("a stream begins with it", field="hello")
    parse_uuid(request.hello.worker, field="hello.worker")
    require_range(request.hello.capacity, field="hello.capacity", least=1, most=MAX_CAPACITY)
    require_size(request.hello.held_tokens, field="hello.held_tokens", most=MAX_TOKENS)
    check_work(request)


def check_work(request: service.WorkRequest) -> None:
    """Raises InvalidArgument, with the field, unless a message is within its limits."""
    require_size(request.held_tokens, field="held_tokens", most=MAX_TOKENS)
    require_size(request.results, field="results", most=MAX_CAPACITY)
    require_size(request.logs, field="logs", most=MAX_CHUNKS)
    for index, result in enumerate(request.results):
        at = f"results[{index}]"
        require_range(result.token, field=f"{at}.token", least=1, most=MAX_TOKEN)
        require_range(len(result.error_class), field=f"{at}.error_class", least=0, most=MAX_CLASS_LENGTH)
        require_range(len(result.error), field=f"{at}.error", least=0, most=domain.MAX_ERROR_LENGTH)
    for index, chunk in enumerate(request.logs):
        at = f"logs[{index}]"
        parse_uuid(PIPELINE_RUN.parse(chunk.run, field=f"{at}.run")["run"], field=f"{at}.run")
        definitions.require_step_id(chunk.step, field=f"{at}.step")
        require_range(chunk.attempt, field=f"{at}.attempt", least=1, most=1 << 30)
        require_range(chunk.offset, field=f"{at}.offset", least=0, most=1 << 40)
        require_range(len(chunk.data), field=f"{at}.data", least=0, most=MAX_CHUNK_BYTES)
