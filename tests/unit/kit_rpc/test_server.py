"""The chassis, from the outside: a real server on loopback, and the log's protocol as an example."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.service_pb2_grpc import AuditServiceStub
from headrace.errors import error_details
from headrace_kit import errors
from headrace_kit.auth import Tokens
from headrace_kit.context import CommandContext
from headrace_kit.rpc import Server, causing, current_principal, from_peer, require_role
from headrace_kit.testing import (
    OPERATOR_CALLER,
    SERVICE_CALLER,
    Caller,
    FixedClock,
    RunningServer,
    serving,
    write_tokens,
)
from tests.support.answering import Example, raising

EVENT = "0197a5b2-0000-7000-8000-000000000001"


def stub(running: RunningServer, caller: Caller = OPERATOR_CALLER) -> Any:
    return AuditServiceStub(running.channel(caller))


async def refused(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize(
    "metadata", [(), (("authorization", "Bearer wrong"),), (("authorization", "Basic x"),), (("authorization", ""),)]
)
async def test_no_or_wrong_token_is_unauthenticated(metadata: tuple[tuple[str, str], ...]) -> None:
    async with serving(Example().served()) as running:
        bare: Any = AuditServiceStub(running.bare_channel())
        error = await refused(bare.GetEvent(service.GetEventRequest(), metadata=metadata))
        stream = await refused(bare.FollowLog(service.FollowLogRequest(), metadata=metadata).read())
    assert error.code() is stream.code() is grpc.StatusCode.UNAUTHENTICATED
    assert error_details(error)[1].reason in ("TOKEN_MISSING", "TOKEN_INVALID")


async def test_reflection_needs_a_token_and_health_does_not() -> None:
    async with serving(Example().served()) as running:
        health: Any = health_pb2_grpc.HealthStub(running.bare_channel())
        answer = await health.Check(health_pb2.HealthCheckRequest(service="headrace.api.audit.v1.AuditService"))
        reflect: Any = running.bare_channel().stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )
        error = await refused(reflect(iter([b""])).read())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_caller_is_whose_token_it_is() -> None:
    seen: list[str] = []

    async def answer() -> None:
        seen.append(current_principal().id)

    async with serving(Example(answer).served()) as running:
        await stub(running).GetEvent(service.GetEventRequest())
        await stub(running, SERVICE_CALLER).GetEvent(service.GetEventRequest())
    assert seen == ["persons/operator", "services/monitor"]


async def test_a_missing_role_is_permission_denied() -> None:
    async def answer() -> None:
        require_role("service")

    async with serving(Example(answer).served()) as running:
        error = await refused(stub(running).GetEvent(service.GetEventRequest()))
        await stub(running, SERVICE_CALLER).GetEvent(service.GetEventRequest())
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidArgument("bad", field="metrics[3].value"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.NotFound("run", "projects/p/runs/r"), grpc.StatusCode.NOT_FOUND),
        (errors.AlreadyExists("taken", reason="COMMAND_ID_REUSED"), grpc.StatusCode.ALREADY_EXISTS),
        (
            errors.FailedPrecondition("no", [errors.Violation("GATE", "v/1", "loses")]),
            grpc.StatusCode.FAILED_PRECONDITION,
        ),
        (errors.Deposed("late"), grpc.StatusCode.ABORTED),
        (errors.PermissionDenied("no"), grpc.StatusCode.PERMISSION_DENIED),
        (errors.ResourceExhausted("full", retry_after_s=2.5), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.Unavailable("down", metadata={"part": "kafka"}), grpc.StatusCode.UNAVAILABLE),
        (errors.DeadlineExceeded("slow"), grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
)
async def test_every_error_crosses_the_wire_whole(error: errors.KitError, code: grpc.StatusCode) -> None:
    async with serving(Example(raising(error)).served()) as running:
        received = from_peer(await refused(stub(running).GetEvent(service.GetEventRequest())))
    assert (received.message, received.reason, received.field) == (error.message, error.reason, error.field)
    assert received.metadata == error.metadata
    assert type(received) is (errors.Aborted if isinstance(error, errors.Aborted) else type(error))
    if isinstance(error, errors.FailedPrecondition) and isinstance(received, errors.FailedPrecondition):
        assert received.violations == error.violations
    if isinstance(error, errors.ResourceExhausted) and isinstance(received, errors.ResourceExhausted):
        assert received.retry_after_s == error.retry_after_s


LONGEST: dict[str, Any] = {"field": "f" * 4000, "metadata": {f"k{i}": "v" * 900 for i in range(99)}}


@pytest.mark.parametrize(
    "error",
    [
        errors.FailedPrecondition(
            "日" * 5000, [errors.Violation("GATE" * 100, "ü" * 3000, "日" * 3000)] * 500, **LONGEST
        ),
        errors.InvalidArgument("日" * 5000, **LONGEST),
        errors.ResourceExhausted("日" * 5000, retry_after_s=1e9, metadata=LONGEST["metadata"]),
    ],
    ids=lambda each: type(each).__name__,
)
async def test_the_longest_error_still_fits_the_headers(error: errors.KitError) -> None:
    async with serving(Example(raising(error)).served()) as running:
        failure = await refused(stub(running).GetEvent(service.GetEventRequest()))
    received = from_peer(failure)
    assert type(received) is type(error)
    assert received.message.endswith("…")
    assert received.field == error.field or received.field.endswith("…")
    headers = [("grpc-message", quote(failure.details() or "")), *(failure.trailing_metadata() or ())]
    size = sum(
        len(key) + 32 + (len(value) * 4 / 3 if isinstance(value, bytes) else len(value)) for key, value in headers
    )
    assert size < 8192 - 42 - 60 - 44  # the status, the type of the content, and gRPC's own status


async def test_a_fault_of_the_program_tells_nothing_of_its_inside() -> None:
    async with serving(Example(raising(RuntimeError("password=hunter2"))).served()) as running:
        error = await refused(stub(running).GetEvent(service.GetEventRequest()))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "hunter2" not in f"{error.details()}{error.trailing_metadata()}"


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x12\x02\xc3\x28", b"\x12\xff"])
@pytest.mark.parametrize("method", ["FollowLog", "RedriveParked"])
async def test_bytes_that_are_no_message_are_an_invalid_argument(method: str, data: bytes) -> None:
    async with serving(Example().served()) as running:
        raw: Any = running.channel().unary_stream(f"/headrace.api.audit.v1.AuditService/{method}")
        error = await refused(raw(data).read())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_details(error)[1].reason == "MALFORMED_REQUEST"


async def test_nul_in_a_text_is_refused_with_its_path() -> None:
    async with serving(Example().served()) as running:
        error = await refused(stub(running).FollowLog(service.FollowLogRequest(types=["a", "b\0"])).read())
    assert error_details(error)[1].field == "types[1]"


async def test_a_call_over_its_deadline_ends() -> None:
    ended = asyncio.Event()

    async def answer() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving(Example(answer).served()) as running:
        error = await refused(stub(running).GetEvent(service.GetEventRequest(), timeout=0.2))
        async with asyncio.timeout(5):
            await ended.wait()
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_draining_ends_streams_at_once_and_lets_calls_finish() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def answer() -> None:
        begun.set()
        await go_on.wait()

    example = Example(answer)
    async with serving(example.served()) as running:
        client = stub(running)
        unary = asyncio.ensure_future(client.GetEvent(service.GetEventRequest()))
        stream = client.FollowLog(service.FollowLogRequest())
        await stream.read()
        await asyncio.gather(begun.wait(), example.following.wait())
        draining = asyncio.ensure_future(running.server.drain(20))
        error = await refused(stream.read())
        assert not draining.done()
        go_on.set()
        await unary
        async with asyncio.timeout(5):
            await draining
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error_details(error)[1].reason == "DRAINING"


async def test_a_command_names_caller_time_and_cause() -> None:
    example, clock = Example(), FixedClock(datetime(2026, 3, 4, tzinfo=UTC))
    command, cause, chain = uuid4(), uuid4(), uuid4()
    causal = CommandContext(
        command_id=command,
        actor="services/monitor",
        now=clock(),
        on_behalf_of="persons/ada",
        causation_id=cause,
        correlation_id=chain,
        hlc=77,
    )
    async with serving(example.served(), clock=clock) as running:
        with causing(causal):
            await stub(running, SERVICE_CALLER).RedriveParked(service.RedriveParkedRequest(command_id=str(command)))
    [context] = example.contexts
    assert (context.command_id, context.actor, context.now) == (command, "services/monitor", clock())
    assert (context.causation_id, context.correlation_id, context.hlc) == (cause, chain, 77)
    assert context.on_behalf_of == "persons/ada"


async def test_a_person_can_not_claim_to_act_for_another() -> None:
    example = Example()
    async with serving(example.served()) as running:
        await stub(running).RedriveParked(
            service.RedriveParkedRequest(command_id=str(uuid4())), metadata=(("headrace-on-behalf-of", "persons/boss"),)
        )
    assert example.contexts[0].on_behalf_of == ""


@pytest.mark.parametrize(
    ("command_id", "metadata", "field"),
    [
        ("", (), "command_id"),
        ("nonsense", (), "command_id"),
        (str(UUID(int=0)), (), "command_id"),
        ("{" + EVENT + "}", (), "command_id"),
        (EVENT, (("headrace-causation-id", "x"),), "metadata['headrace-causation-id']"),
        (EVENT, (("headrace-hlc", "-1"),), "metadata['headrace-hlc']"),
        (EVENT, (("headrace-hlc", "9" * 19),), "metadata['headrace-hlc']"),
    ],
)
async def test_ids_that_are_none_are_refused(command_id: str, metadata: Any, field: str) -> None:
    async with serving(Example().served()) as running:
        request = service.RedriveParkedRequest(command_id=command_id)
        error = await refused(stub(running).RedriveParked(request, metadata=metadata))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_details(error)[1].field == field


async def test_a_second_server_on_a_taken_port_says_so() -> None:
    async with serving(Example().served()) as running:
        with pytest.raises(errors.Unavailable, match="can not be listened on"):
            Server("second", listen=running.address, tokens=running.server._calls._tokens, servicers=[])


async def test_a_call_made_while_answering_names_the_same_cause() -> None:
    inner = Example()
    async with serving(inner.served()) as behind:
        onward: Any = AuditServiceStub(behind.channel(SERVICE_CALLER))

        async def answer() -> None:
            await onward.RedriveParked(service.RedriveParkedRequest(command_id=EVENT))

        async with serving(Example(answer).served()) as running:
            await stub(running).GetEvent(service.GetEventRequest(), metadata=(("headrace-causation-id", EVENT),))
    [context] = inner.contexts
    assert (context.actor, context.on_behalf_of) == ("services/monitor", "persons/operator")
    assert context.causation_id == UUID(EVENT)


async def test_an_error_of_a_peer_is_passed_on() -> None:
    async with serving(Example(raising(errors.NotFound("run", "projects/p/runs/r"))).served()) as behind:
        onward: Any = AuditServiceStub(behind.channel(SERVICE_CALLER))

        async def answer() -> None:
            await onward.GetEvent(service.GetEventRequest())

        async with serving(Example(answer).served()) as running:
            error = await refused(stub(running).GetEvent(service.GetEventRequest()))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error_details(error)[1].metadata["name"] == "projects/p/runs/r"


async def test_traces_run_through_a_call_into_the_command() -> None:
    example, parent = Example(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with serving(example.served()) as running:
        await stub(running).RedriveParked(
            service.RedriveParkedRequest(command_id=EVENT), metadata=(("traceparent", parent),)
        )
    assert example.contexts[0].traceparent.split("-")[1] == parent.split("-")[1]


async def test_unavailable_is_tried_again_and_nothing_else_is() -> None:
    down = Example(raising(errors.Unavailable("down"), errors.Unavailable("down"), errors.NotFound("run", "r")))
    async with serving(down.served()) as running:
        error = await refused(stub(running).GetEvent(service.GetEventRequest()))
    assert (error.code(), down.calls) == (grpc.StatusCode.NOT_FOUND, 3)


async def test_without_its_tokens_file_nobody_is_let_in(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "absent.json")
    with pytest.raises(errors.Unavailable):
        tokens.principal(OPERATOR_CALLER.token)
    for content in ("", "{", '[{"sha256": "xyz"}]', '[{"sha256": "00", "principal": "p", "roles": "admin"}]'):
        (tmp_path / "absent.json").write_text(content)
        with pytest.raises(errors.Unavailable):
            tokens.principal(OPERATOR_CALLER.token)
    write_tokens(tmp_path / "absent.json", [OPERATOR_CALLER])
    assert tokens.principal(OPERATOR_CALLER.token).id == "persons/operator"


async def test_a_token_taken_away_is_refused_from_then_on(tmp_path: Path) -> None:
    tokens = Tokens(write_tokens(tmp_path / "tokens.json", [OPERATOR_CALLER, SERVICE_CALLER]))
    assert tokens.principal(SERVICE_CALLER.token).id == "services/monitor"
    write_tokens(tmp_path / "tokens.json", [OPERATOR_CALLER])
    with pytest.raises(errors.Unauthenticated):
        tokens.principal(SERVICE_CALLER.token)


@pytest.mark.parametrize("name", ["ada@example.org", "Ada Lovelace", "Ada", "ada.lovelace", "", "-", "a" * 65])
def test_a_principal_is_opaque_or_lets_nobody_in(tmp_path: Path, name: str) -> None:
    named = Caller(f"persons/{name}", "token", ("operator",))
    tokens = Tokens(write_tokens(tmp_path / "tokens.json", [named, SERVICE_CALLER]))
    with pytest.raises(errors.Unauthenticated):
        tokens.principal("token")
    assert tokens.principal(SERVICE_CALLER.token).id == SERVICE_CALLER.principal
