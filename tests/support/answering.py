"""A servicer that does what a test tells it, behind the log's protocol."""
# ruff: noqa: N802 - the protocol names the methods

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.service_pb2_grpc import AuditServiceServicer, add_AuditServiceServicer_to_server
from headrace_kit.context import CommandContext
from headrace_kit.rpc import Servicer, command_context

Answer = Callable[[], Awaitable[object]]


def raising(*errors: Exception) -> Answer:
    """An answer that fails with each of these in turn, and with the last one from then on."""
    left = list(errors)

    async def answer() -> None:
        raise left.pop(0) if len(left) > 1 else left[0]

    return answer


if TYPE_CHECKING:
    # To type checkers the protocol's class demands every method; at run time it refuses those that a test leaves out.
    class _Protocol: ...
else:
    _Protocol = AuditServiceServicer


class Example(_Protocol):
    """``GetEvent`` does what it is told, ``RedriveParked`` notes the command, ``FollowLog`` never ends."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer
        self.calls = 0
        self.contexts: list[CommandContext] = []
        self.following = asyncio.Event()

    async def GetEvent(self, request: service.GetEventRequest, context: object) -> service.GetEventResponse:
        self.calls += 1
        if self.answer is not None:
            await self.answer()
        return service.GetEventResponse()

    async def RedriveParked(
        self, request: service.RedriveParkedRequest, context: object
    ) -> service.RedriveParkedResponse:
        self.contexts.append(command_context(request.command_id))
        return service.RedriveParkedResponse()

    async def FollowLog(
        self, request: service.FollowLogRequest, context: object
    ) -> AsyncIterator[service.FollowLogResponse]:
        yield service.FollowLogResponse()
        self.following.set()
        await asyncio.Event().wait()

    def served(self) -> Sequence[Servicer]:
        """As ``Server`` takes it."""
        return [(add_AuditServiceServicer_to_server, self)]
