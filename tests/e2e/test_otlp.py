"""Spans over OpenTelemetry's protocol: its real exporter, both encodings, bad input, and kills of the service."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import grpc
import httpx2
import pytest
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind

from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace.client import Client
from headrace.errors import error_details
from headrace_gateway.otlp import JSON, MAX_BODY_BYTES, PROTOBUF
from tests.support.eventually import eventually
from tests.support.platform import Platform
from tests.support.spans import now_ns, trace_id

pytestmark = pytest.mark.timeout(300)
Export = collector.ExportTraceServiceRequest


@pytest.fixture(scope="module")
def http(platform: Platform) -> Iterator[httpx2.Client]:
    own = platform.connection
    with httpx2.Client(base_url=own.gateway_url, headers={"authorization": f"Bearer {own.token}"}, timeout=60) as found:
        yield found


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[Client]:
    with platform.client() as operator:
        yield operator


def batch(trace: str, *numbers: int, **fields: Any) -> Export:
    """A request with the spans of these numbers."""
    request = Export()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "app"
    scope = resource.scope_spans.add()
    scope.scope.name = "tests"
    for number in numbers:
        span = scope.spans.add(
            trace_id=bytes.fromhex(trace),
            span_id=number.to_bytes(8, "big"),
            name=f"span {number}",
            start_time_unix_nano=now_ns(),
            end_time_unix_nano=now_ns() + 1000,
        )
        span.attributes.add(key="number").value.int_value = number
        for name, value in fields.items():
            setattr(span, name, value)
    return request


def post(http: httpx2.Client, project: str, body: bytes, media_type: str = PROTOBUF, **headers: str) -> httpx2.Response:
    given = {"content-type": media_type, **{key.replace("_", "-"): value for key, value in headers.items()}}
    return http.post(f"/projects/{project}/v1/traces", content=body, headers=given)


def accepted(answer: httpx2.Response) -> collector.ExportTraceServiceResponse:
    assert answer.status_code == 200, answer.text
    return collector.ExportTraceServiceResponse.FromString(answer.content)


def trace_of(client: Client, project: str, trace: str) -> resources.Trace:
    return client.tracking.GetTrace(tracking.GetTraceRequest(name=f"projects/{project}/traces/{trace}")).trace


def spans_of(client: Client, project: str, trace: str) -> list[resources.Span]:
    request = tracking.ListSpansRequest(trace=f"projects/{project}/traces/{trace}", page_size=1000)
    return list(client.tracking.ListSpans(request).spans)


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
def test_opentelemetrys_exporter_needs_an_address_and_a_token(
    platform: Platform, client: Client, project: str, compression: Compression
) -> None:
    own = platform.connection
    exporter = OTLPSpanExporter(
        endpoint=f"{own.gateway_url}/projects/{project}/v1/traces",
        headers={"authorization": f"Bearer {own.token}"},
        compression=compression,
    )
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("tests.shop")
    with tracer.start_as_current_span("GET /basket", kind=SpanKind.SERVER) as root:
        root.set_attributes({"http.status": 500, "slow": True, "share": 0.25, "parts": ["a", "b"], "raw": b"\x00\xff"})
        with pytest.raises(KeyError), tracer.start_as_current_span("price", links=[Link(root.get_span_context())]):
            raise KeyError("no price")
    provider.shutdown()
    identity = f"{root.get_span_context().trace_id:032x}"
    trace = trace_of(client, project, identity)
    assert (trace.display_name, trace.state, trace.span_count) == ("GET /basket", resources.TRACE_STATE_OK, 2)
    assert trace.experiment == f"projects/{project}/experiments/Default"
    first, second = spans_of(client, project, identity)
    assert dict(first.attributes) == {
        "http.status": "500",
        "slow": "true",
        "share": "0.25",
        "parts": '["a","b"]',
        "raw": f'"{base64.b64encode(bytes([0, 255])).decode()}"',
    }
    assert (first.kind, first.resource["service.name"], first.scope) == (
        resources.SPAN_KIND_SERVER,
        '"shop"',
        "tests.shop",
    )
    assert (second.parent_span_id, second.status) == (first.span_id, resources.SPAN_STATUS_ERROR)
    assert second.events[0].name == "exception"
    assert (second.links[0].trace_id, second.links[0].span_id) == (identity, first.span_id)


def test_json_and_protobuf_come_to_the_same(http: httpx2.Client, client: Client, project: str) -> None:
    one, other = trace_id(), trace_id()
    accepted(post(http, project, batch(one, 1).SerializeToString()))
    start = now_ns()
    span = {
        "traceId": other.upper(),
        "spanId": "0000000000000001",
        "name": "span 1",
        "kind": 0,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + 1000),
        "attributes": [{"key": "number", "value": {"intValue": "1"}}],
        "somethingNew": 1,
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "app"}}]}
    body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "tests"}, "spans": [span]}]}]}
    answer = post(http, project, json.dumps(body).encode(), "application/json; charset=utf-8")
    assert (answer.status_code, answer.json()) == (200, {})
    found = [spans_of(client, project, each)[0] for each in (one, other)]
    for each in found:
        each.trace_id, each.start_time_ns, each.end_time_ns = "", 0, 0
    assert found[0] == found[1]


def test_traces_go_to_the_experiment_and_run_that_headers_name(
    http: httpx2.Client, client: Client, project: str
) -> None:
    parent, run = f"projects/{project}", str(uuid4())
    named = tracking.CreateExperimentRequest(
        command_id=str(uuid4()), name=f"{parent}/experiments/named", display_name="Named"
    )
    experiment = client.tracking.CreateExperiment(named).experiment
    trace = trace_id()
    body = batch(trace, 1).SerializeToString()
    accepted(post(http, project, body, x_mlflow_experiment_id=str(experiment.number), x_mlflow_run_id=run))
    found = trace_of(client, project, trace)
    assert (found.experiment, found.run) == (experiment.name, f"{parent}/runs/{run}")
    assert post(http, project, body, x_mlflow_experiment_id="123").status_code == 404
    assert post(http, project, body, x_mlflow_run_id="no run").status_code == 404
    put_away = tracking.DeleteExperimentRequest(command_id=str(uuid4()), experiment=experiment.name)
    client.tracking.DeleteExperiment(put_away)
    refused = post(http, project, body, x_mlflow_experiment_id=str(experiment.number))
    assert refused.status_code == 400
    assert "put away" in Status.FromString(refused.content).message


def test_what_is_no_span_is_counted_and_the_rest_is_kept(http: httpx2.Client, client: Client, project: str) -> None:
    trace = trace_id()
    request = batch(trace, 1)
    spans = request.resource_spans[0].scope_spans[0].spans
    for fault in (
        {"trace_id": b"short"},
        {"span_id": bytes(8)},
        {"parent_span_id": b"abc"},
        {"start_time_unix_nano": 0},
        {"end_time_unix_nano": 5},
        {"start_time_unix_nano": 1 << 63},
        {"start_time_unix_nano": 1000},  # in 1970: older than traces are kept
    ):
        spans.append(batch(trace, 9, **fault).resource_spans[0].scope_spans[0].spans[0])
    large = batch(trace, 10).resource_spans[0].scope_spans[0].spans[0]
    for number in range(5):
        large.attributes.add(key=f"k{number}").value.string_value = "x" * 262_000
    spans.append(large)
    partial = accepted(post(http, project, request.SerializeToString())).partial_success
    assert partial.rejected_spans == 8
    assert partial.error_message.startswith("resource_spans[0].scope_spans[0].spans[1].trace_id: ")
    assert [each.name for each in spans_of(client, project, trace)] == ["span 1"]
    deleted = tracking.DeleteTracesRequest(
        command_id=str(uuid4()),
        experiment=f"projects/{project}/experiments/Default",
        traces=[f"projects/{project}/traces/{trace}"],
    )
    assert client.tracking.DeleteTraces(deleted).trace_count == 1
    partial = accepted(post(http, project, batch(trace, 2).SerializeToString())).partial_success
    assert (partial.rejected_spans, partial.error_message.endswith("was deleted")) == (1, True)


def test_what_is_too_long_is_cut_and_counted(http: httpx2.Client, client: Client, project: str) -> None:
    trace = trace_id()
    request = batch(trace, 1, name="\x00" * 3 + "n" * 300)
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="long").value.string_value = "☂" * 300_000
    span.attributes.add(key="nul").value.string_value = "a\0b"
    for number in range(300):
        span.attributes.add(key=f"k{number}").value.int_value = number
        span.events.add(name="e", time_unix_nano=1)
        span.links.add(trace_id=b"x" * 16, span_id=b"y" * 8)
    accepted(post(http, project, request.SerializeToString()))
    [found] = spans_of(client, project, trace)
    assert found.name == "\ufffd" * 3 + "n" * 247
    assert (len(found.attributes), len(found.events), len(found.links)) == (256, 256, 128)
    assert 262_000 < len(found.attributes["long"]) <= 262_144
    assert json.loads(found.attributes["long"]).rstrip("…").strip("☂") == ""
    assert json.loads(found.attributes["nul"]) == "a\0b"
    assert found.dropped_attributes_count == 303 - 256 + 1  # those left out, and one that was cut
    assert (found.dropped_events_count, found.dropped_links_count) == (300 - 256, 300 - 128)


GOOD = batch("ab" * 16, 1).SerializeToString()
BOMB = zlib.compressobj(9, zlib.DEFLATED, 31)
BOMBED = BOMB.compress(bytes(MAX_BODY_BYTES + 1)) + BOMB.flush()


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (415, GOOD, {"content-type": "text/plain"}),
        (415, GOOD, {"content-type": ""}),
        (415, GOOD, {"content-encoding": "br"}),
        (400, GOOD, {"content-encoding": "gzip"}),
        (400, gzip.compress(GOOD, mtime=0)[:-9], {"content-encoding": "gzip"}),
        (413, BOMBED, {"content-encoding": "gzip"}),
        (413, bytes(MAX_BODY_BYTES + 1), {}),
        (400, b"\xff\xff\xff", {}),
        (400, GOOD, {"content-type": JSON}),
        (400, b"[]", {"content-type": JSON}),
        (400, b'{"resourceSpans": 1}', {"content-type": JSON}),
        (400, b'{"resourceSpans": [1]}', {"content-type": JSON}),
        (400, b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}', {"content-type": JSON}),
        (400, b'{"resourceSpans": ' + b"[" * 5000 + b"]" * 5000 + b"}", {"content-type": JSON}),
        (400, batch("ab" * 16, *range(1, 10_002)).SerializeToString(), {}),
    ],
    ids=[
        *("plain text", "no type", "brotli", "not gzip", "half of gzip", "a bomb", "too large", "no protobuf"),
        *("no JSON", "a list", "a number for a list", "a number for a resource", "no id", "deep", "too many spans"),
    ],
)
def test_bad_bodies_are_refused(
    http: httpx2.Client, project: str, status: int, body: bytes, headers: dict[str, str]
) -> None:
    answer = post(
        http,
        project,
        body,
        headers.get("content-type", PROTOBUF),
        **{key: value for key, value in headers.items() if key != "content-type"},
    )
    assert answer.status_code == status, answer.text[:300]
    if headers.get("content-type") == JSON:
        assert answer.json()["message"]
    else:
        assert Status.FromString(answer.content).message


def test_strangers_and_empty_requests(http: httpx2.Client, project: str, platform: Platform) -> None:
    with httpx2.Client(base_url=platform.connection.gateway_url, timeout=30) as stranger:
        assert stranger.post("/v1/traces", content=GOOD, headers={"content-type": PROTOBUF}).status_code == 401
    assert http.get("/v1/traces").status_code == 405
    assert accepted(post(http, project, b"")) == collector.ExportTraceServiceResponse()
    assert post(http, "No such project!", GOOD).status_code == 400


def test_a_resource_that_many_spans_share_does_not_blow_up(http: httpx2.Client, project: str) -> None:
    request = batch(trace_id(), *range(1, 9000))
    for number in range(100):
        request.resource_spans[0].resource.attributes.add(key=f"k{number}").value.string_value = "x" * 7000
    answer = post(http, project, request.SerializeToString())
    assert answer.status_code == 400
    assert "come to at most" in Status.FromString(answer.content).message


@settings(
    max_examples=80,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(place=st.integers(0, len(GOOD) - 1), value=st.binary(min_size=1, max_size=12))
def test_whatever_bytes_come_no_answer_is_a_fault_of_ours(
    http: httpx2.Client, project: str, place: int, value: bytes
) -> None:
    answer = post(http, project, GOOD[:place] + value + GOOD[place + len(value) :])
    assert answer.status_code in (200, 400), answer.text[:300]


def test_exporters_over_grpc_need_nothing_but_metadata(platform: Platform, client: Client, project: str) -> None:
    trace, token = trace_id(), platform.connection.token
    own = (("authorization", f"Bearer {token}"),)
    named = (*own, ("x-headrace-experiment", f"projects/{project}/experiments/caf%C3%A9"))
    with grpc.insecure_channel(platform.connection.addresses["tracking"]) as channel:
        stub = TraceServiceStub(channel)  # type: ignore[no-untyped-call] # generated without types
        answer = stub.Export(batch(trace, 1, 2), metadata=named)
        assert not answer.HasField("partial_success")
        assert stub.Export(batch(trace, 3, trace_id=b"no"), metadata=named).partial_success.rejected_spans == 1
        with pytest.raises(grpc.RpcError) as unknown:
            stub.Export(batch(trace, 3))
        bad = (*own, ("x-headrace-experiment", "nothing"))
        with pytest.raises(grpc.RpcError) as refused:
            stub.Export(batch(trace, 3), metadata=bad)
    assert error_details(unknown.value)[0] is grpc.StatusCode.UNAUTHENTICATED
    code, details = error_details(refused.value)
    assert (code, details.field) == (grpc.StatusCode.INVALID_ARGUMENT, "x-headrace-experiment")
    found = trace_of(client, project, trace)
    assert (found.span_count, found.experiment) == (2, f"projects/{project}/experiments/café")


def test_spans_that_were_acknowledged_are_there_once_whatever_kills_the_service(
    platform: Platform, http: httpx2.Client, client: Client, project: str
) -> None:
    traces = [trace_id() for _ in range(4)]
    acknowledged = threading.Semaphore(0)
    repeats: list[int] = []

    def export(trace: str) -> None:
        for first in range(1, 400, 20):
            body = batch(trace, *range(first, first + 20)).SerializeToString()

            def sent(body: bytes = body) -> bool:
                answer = post(http, project, body)
                assert answer.status_code in (200, 429, 503, 504), answer.text
                repeats.append(answer.status_code)
                return answer.status_code == 200

            eventually(sent, within_s=120)
            acknowledged.release()

    with ThreadPoolExecutor(len(traces)) as pool:
        exports = [pool.submit(export, trace) for trace in traces]
        for count in (3, 10, 20):
            for _ in range(count):
                assert acknowledged.acquire(timeout=120)
            platform.wait_ready("tracking", other_than=platform.kill("tracking"))
        for each in exports:
            each.result(timeout=200)
    assert any(each != 200 for each in repeats)
    for trace in traces:
        found = trace_of(client, project, trace)
        spans = spans_of(client, project, trace)
        assert len(spans) == found.span_count == 400
        assert found.size_bytes == sum(each.ByteSize() for each in spans)
