"""Whatever comes to any RPC is answered, or refused with a reason and a field; what was refused left nothing behind."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headrace.api.audit.v1 import service_pb2 as audit
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace.channel import MAX_MESSAGE_BYTES
from headrace.client import Client
from headrace.errors import error_details
from tests.support.calls import Method, Outcome, call, methods, offered, require_civil
from tests.support.eventually import eventually
from tests.support.hostile import Spoil, set_at, spoils
from tests.support.limits import LIMITS, Limit
from tests.support.platform import Platform
from tests.support.protos import messages
from tests.support.world import World, build

pytestmark = pytest.mark.timeout(300)
METHODS = methods()
EXAMPLES = int(os.environ.get("HEADRACE_BAD_INPUT_EXAMPLES", "40"))
"""Requests to each method; more find more."""


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[Client]:
    with platform.client() as operator:
        yield operator


@pytest.fixture(scope="module")
def world(client: Client, platform: Platform) -> World:
    with Client(platform.connection_of("orchestrator")) as author:
        return build(client, author, f"t-{uuid4().hex[:12]}")


@dataclass(slots=True)
class Attack:
    """Calls of one method, and which of them were refused."""

    client: Client
    method: Method
    refused: dict[UUID, Outcome] = field(default_factory=dict[UUID, Outcome])

    def send(self, *requests: bytes) -> Outcome:
        """One call, told apart from all others by its correlation id."""
        mark = uuid4()
        metadata = [("headrace-correlation-id", str(mark))]
        outcome = call(self.client.channel(self.method.service), self.method, requests, metadata=metadata)
        if not outcome.accepted and len(requests) == 1:  # what came earlier in a stream was taken
            self.refused[mark] = outcome
        require_civil(self.method, outcome)
        return outcome


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_hostile_request_is_answered_or_refused_with_a_reason_and_leaves_nothing(
    client: Client, world: World, method: Method
) -> None:
    before = position(client, method.service)
    attack = Attack(client, method)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # what is made is small already, and each call costs
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    @given(made=requests(method))
    def drive(made: Made) -> None:
        attack.send(*made.build(lambda: world.valid(method.descriptor.full_name), method))

    drive()
    assert_traceless(client, method.service, before, attack.refused)
    assert_serving(client, method)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_request_that_is_right_is_not_blamed(client: Client, world: World, method: Method) -> None:
    outcome = call(
        client.channel(method.service), method, [world.valid(method.descriptor.full_name).SerializeToString()]
    )
    blamed = "parameters['days']" if method.descriptor.name == "StartPipelineRun" else ""
    assert outcome.code is not grpc.StatusCode.INVALID_ARGUMENT or outcome.field == blamed, outcome


@pytest.mark.parametrize("service", sorted({each.service for each in METHODS}))
def test_every_method_that_a_server_offers_is_attacked(client: Client, service: str) -> None:
    database: Any = ProtoReflectionDescriptorDatabase(client.channel(service))
    known = {each.descriptor.containing_service.full_name for each in METHODS if each.service == service}
    assert set(offered(database.get_services())) == known


def test_a_message_larger_than_any_may_be_is_refused(client: Client) -> None:
    [method] = [each for each in METHODS if each.descriptor.name == "LogParams"]
    outcome = call(client.channel("tracking"), method, [b"\x00" * (MAX_MESSAGE_BYTES + 1)])
    assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_what_a_comment_allows_is_taken_and_the_next_is_refused(client: Client, world: World, limit: Limit) -> None:
    [method, *_] = [each for each in METHODS if each.descriptor.full_name == limit.method]
    channel = client.channel(method.service)

    def outcome(value: object) -> Outcome:
        request = world.valid(limit.method)
        if value is not None:
            set_at(request, limit.field, value)
        return call(channel, method, [request.SerializeToString()])

    within, beyond = outcome(limit.good), outcome(limit.bad)
    assert within.code is not grpc.StatusCode.INVALID_ARGUMENT or not blames(within, limit.field), within
    assert beyond.code is grpc.StatusCode.INVALID_ARGUMENT, beyond
    assert blames(beyond, limit.field), beyond


def blames(outcome: Outcome, path: str) -> bool:
    """Whether a field or an entry of it is named; of a mask the mask."""
    return re.sub(r"\[[^\]]*\]", "", outcome.field).startswith(path.removesuffix(".paths"))


def test_a_run_that_can_not_be_started_leaves_no_experiment(client: Client, world: World) -> None:
    name = f"{world.parent}/experiments/{uuid4()}"
    taken = tracking.StartRunRequest(command_id=str(uuid4()), name=world.run, experiment=name)
    with pytest.raises(grpc.RpcError) as refused:
        client.tracking.StartRun(taken)
    assert error_details(refused.value)[0] is grpc.StatusCode.ALREADY_EXISTS
    found = client.tracking.ListExperiments(tracking.ListExperimentsRequest(parent=world.parent, page_size=1000))
    assert name not in [each.name for each in found.experiments]


@dataclass(frozen=True, slots=True)
class Made:
    """A request as bytes, or as harm to a valid one."""

    raw: bytes | None = None
    harm: tuple[Spoil, ...] = ()
    first: bool = True
    """Whether a stream begins with it; otherwise a valid message comes before."""

    def build(self, valid: Callable[[], Message], method: Method) -> Sequence[bytes]:
        """The messages of a call."""
        if self.raw is not None:
            spoiled = self.raw
        else:
            message = valid()
            for each in self.harm:
                each.apply(message)
            spoiled = message.SerializeToString()
        streamed = method.descriptor.client_streaming and not self.first
        return [valid().SerializeToString(), spoiled] if streamed else [spoiled]


def requests(method: Method) -> st.SearchStrategy[Made]:
    """Mostly valid requests with one or two fields spoiled; some drawn whole from the descriptor; some mere bytes."""
    harms = spoils(method.request)
    raw = st.binary(min_size=1, max_size=200) | messages(method.input_class).map(lambda each: each.SerializeToString())
    made = [st.builds(Made, raw=raw, first=st.booleans())]
    if harms:
        harm = st.lists(st.sampled_from(harms), min_size=1, max_size=2).map(tuple)
        made += [st.builds(Made, harm=harm, first=st.booleans())] * 3
    return st.one_of(made)


def position(client: Client, service: str) -> int:
    """The last position of a service's log, with everything committed in it."""
    log = client.log(service)
    status = eventually(
        lambda: log.GetLogStatus(audit.GetLogStatusRequest()), lambda found: found.unsequenced_age_s == 0
    )
    return int(status.last_position)


def assert_traceless(client: Client, service: str, before: int, refused: dict[UUID, Outcome]) -> None:
    """No event since ``before`` comes from a call that was refused."""
    end, at = position(client, service), before + 1
    while at <= end:
        page = client.log(service).ReadLog(audit.ReadLogRequest(from_position=at, page_size=1000))
        for entry in page.entries:
            outcome = refused.get(UUID(entry.meta.correlation_id)) if entry.meta.correlation_id else None
            assert outcome is None, (entry.type, entry.stream_id, outcome)
        at = page.next_position


def assert_serving(client: Client, method: Method) -> None:
    """The service still says that it is ready."""
    health: Any = health_pb2_grpc.HealthStub(client.channel(method.service))
    answer = health.Check(health_pb2.HealthCheckRequest(service=method.descriptor.containing_service.full_name))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
