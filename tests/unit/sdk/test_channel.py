"""Blocking channels against a real server, and grpc's errors as the SDK's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import pytest

from headrace import errors
from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.service_pb2_grpc import AuditServiceStub
from headrace.channel import connect, open_channel
from headrace.connection import Connection
from headrace.errors import rpc_errors
from headrace_kit import errors as kit
from headrace_kit.testing import OPERATOR_CALLER, FaultProxy, RunningServer, serving
from tests.support.answering import Answer, Example, raising

T = TypeVar("T")


async def called(
    running: RunningServer, call: Callable[[AuditServiceStub], T], token: str = OPERATOR_CALLER.token
) -> T:
    """Calls as a program without a loop does."""

    def work() -> T:
        with open_channel(running.address, token) as channel, rpc_errors():
            return call(AuditServiceStub(channel))

    return await asyncio.to_thread(work)


async def failure(answer: Answer) -> errors.HeadraceError:
    async with serving(Example(answer).served()) as running:
        with pytest.raises(errors.HeadraceError) as caught:
            await called(running, lambda stub: stub.GetEvent(service.GetEventRequest()))
    return caught.value


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (kit.InvalidArgument("bad", field="metrics[3].value"), errors.InvalidArgument),
        (kit.NotFound("run", "projects/p/runs/r"), errors.NotFound),
        (kit.AlreadyExists("taken", reason="COMMAND_ID_REUSED"), errors.AlreadyExists),
        (kit.FailedPrecondition("no", [kit.Violation("GATE", "v/1", "loses")]), errors.FailedPrecondition),
        (kit.Aborted("raced"), errors.Aborted),
        (kit.PermissionDenied("no"), errors.PermissionDenied),
        (kit.ResourceExhausted("full", retry_after_s=2.5), errors.ResourceExhausted),
        (kit.Unavailable("down"), errors.Unavailable),
        (kit.DeadlineExceeded("slow"), errors.DeadlineExceeded),
        (ValueError("a fault"), errors.InternalError),
    ],
)
async def test_each_error_has_its_class_reason_and_field(raised: Exception, kind: type[errors.HeadraceError]) -> None:
    error = await failure(raising(raised))
    assert type(error) is kind
    if isinstance(raised, kit.KitError):
        assert (error.message, error.reason, error.field) == (raised.message, raised.reason, raised.field)
        assert error.retryable == raised.retryable
    if isinstance(raised, kit.FailedPrecondition):
        assert error.violations == (errors.Violation("GATE", "v/1", "loses"),)
    if isinstance(raised, kit.ResourceExhausted):
        assert error.retry_after_s == 2.5


async def test_a_wrong_token_is_unauthenticated() -> None:
    async with serving(Example().served()) as running:
        for token in ("wrong", ""):
            with pytest.raises(errors.Unauthenticated):
                await called(running, lambda stub: stub.GetEvent(service.GetEventRequest()), token)


async def test_streams_carry_the_token_too() -> None:
    async with serving(Example().served()) as running:
        first = await called(running, lambda stub: next(iter(stub.FollowLog(service.FollowLogRequest()))))
    assert first == service.FollowLogResponse()


class Silent(Example):
    """``FollowLog`` says nothing."""

    async def FollowLog(  # noqa: N802 - the protocol names the methods
        self, request: service.FollowLogRequest, context: object
    ) -> AsyncIterator[service.FollowLogResponse]:
        self.following.set()
        await asyncio.Event().wait()
        yield service.FollowLogResponse()


async def test_a_stream_that_breaks_before_its_first_answer_fails() -> None:
    silent = Silent()
    async with serving(silent.served()) as running:
        host, port = running.address.split(":")
        proxy = FaultProxy(host, int(port))
        await proxy.start()

        def follow() -> None:
            with open_channel(proxy.address, OPERATOR_CALLER.token) as channel, rpc_errors():
                next(iter(AuditServiceStub(channel).FollowLog(service.FollowLogRequest())))

        following = asyncio.create_task(asyncio.to_thread(follow))
        await silent.following.wait()
        await proxy.stop()
        with pytest.raises(errors.Unavailable):
            await following


def test_nobody_there_says_where_to_look() -> None:
    connection = Connection(addresses={"registry": "127.0.0.1:1"}, token="t")
    with connect("registry", connection) as channel, pytest.raises(errors.Unavailable, match="headrace status"):  # noqa: SIM117
        with rpc_errors():
            AuditServiceStub(channel).GetEvent(service.GetEventRequest())


def test_a_service_nobody_knows_is_named() -> None:
    with pytest.raises(errors.NotConnected, match="running monitor service"):
        connect("monitor", Connection(addresses={}, token="t"))


@pytest.mark.parametrize("data", [b"", b"\xff\xff", "text", b"\x1a\x03\x0a\x01x"])
def test_details_that_are_none_are_left_out(data: object) -> None:
    details = errors.details_of("what happened", [(errors.DETAILS_KEY, data)])
    assert (details.message, details.reason) == ("what happened", "")
