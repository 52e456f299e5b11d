"""OpenTelemetry's protocol over HTTP: ``POST /v1/traces``, in protobuf or JSON, compressed or not.

Answers are those of its specification: 200 with what was rejected, 4xx for what is in vain, 429 and 503 for what may be
sent again later.
"""

from __future__ import annotations

import asyncio
import zlib
from http import HTTPStatus
from typing import Final
from uuid import uuid4

import grpc
import structlog
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headrace.api.tracking.v1 import service_pb2 as service
from headrace_gateway.mlflow_api.asking import Ask, Backend
from headrace_gateway.mlflow_api.errors import MlflowError, translated
from headrace_gateway.mlflow_api.naming import DEFAULT_ID, experiment_name, run_name
from headrace_gateway.mlflow_api.table import PROJECT
from headrace_gateway.platform import Services
from headrace_kit import otlp
from headrace_kit.objects import ObjectStore

_log = structlog.get_logger(__name__)
PATH: Final = "/v1/traces"
EXPERIMENT_HEADER: Final = "x-mlflow-experiment-id"
RUN_HEADER: Final = "x-mlflow-run-id"
PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""Largest body, before and after it is decompressed."""
MAX_AT_ONCE: Final = 8
"""Requests read at once; more wait unread."""
MAX_WAITING: Final = 256
"""Requests that may wait; more are told to come again."""
INLINE_BYTES: Final = 64 * 1024
"""A larger body is read in a thread, so that others are answered meanwhile."""
RETRY_AFTER_S: Final = 1
_WBITS: Final = {"gzip": 31, "deflate": 15}
_CODES: Final = {
    HTTPStatus.BAD_REQUEST: code_pb2.INVALID_ARGUMENT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: code_pb2.INVALID_ARGUMENT,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: code_pb2.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: code_pb2.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: code_pb2.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: code_pb2.NOT_FOUND,
    HTTPStatus.TOO_MANY_REQUESTS: code_pb2.RESOURCE_EXHAUSTED,
    HTTPStatus.SERVICE_UNAVAILABLE: code_pb2.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: code_pb2.DEADLINE_EXCEEDED,
}
_RETRIED: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)


def routes(services: Services, objects: ObjectStore, project: str) -> list[BaseRoute]:
    """The intake of spans for the gateway's own ``project``, and for any below ``/projects/{project}``."""
    backend, turn = Backend(services, objects, project), asyncio.Semaphore(MAX_AT_ONCE)
    under_way = 0

    async def export(request: Request) -> Response:
        nonlocal under_way
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = media_type == JSON
        try:
            if media_type not in (JSON, PROTOBUF):
                message = f"give a body of {PROTOBUF} or {JSON}"
                raise MlflowError(message, status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
            if under_way >= MAX_AT_ONCE + MAX_WAITING:
                raise MlflowError("too many requests at once", status=HTTPStatus.TOO_MANY_REQUESTS)
            under_way += 1
            try:
                async with turn:
                    return _answer(await _exported(Ask(request, {}, backend), is_json=is_json), is_json=is_json)
            finally:
                under_way -= 1
        except Exception as error:  # noqa: BLE001 - whatever it was, the exporter gets an answer of the form it knows
            return _refusal(error, is_json=is_json)

    return [Route(PATH, export, methods=["POST"]), Route(PROJECT + PATH, export, methods=["POST"])]


async def _exported(ask: Ask, *, is_json: bool) -> ExportTraceServiceResponse:
    body = await _body(ask.request)
    encoding = ask.request.headers.get("content-encoding", "identity").strip().lower()
    read = _read if len(body) < INLINE_BYTES else _in_thread
    found = read(body, encoding, is_json)
    taken = found if isinstance(found, otlp.Taken) else await found
    answer = ExportTraceServiceResponse()
    headers = ask.request.headers
    if taken.spans:
        request = service.LogSpansRequest(
            command_id=str(uuid4()),
            experiment=await experiment_name(ask, headers.get(EXPERIMENT_HEADER, DEFAULT_ID)),
            run=run_name(ask, headers[RUN_HEADER]) if headers.get(RUN_HEADER) else "",
            spans=taken.spans,
        )
        kept: service.LogSpansResponse = await ask.call(ask.services.tracking.LogSpans, request)
        taken.reject(kept.rejected_count, kept.rejected_reason)
    if taken.rejected:
        answer.partial_success.rejected_spans = taken.rejected
        answer.partial_success.error_message = taken.reason
    return answer


def _read(body: bytes, encoding: str, is_json: bool) -> otlp.Taken:  # noqa: FBT001 - as to_thread hands it on
    return otlp.taken(otlp.parsed(_decompressed(body, encoding), is_json=is_json))


async def _in_thread(body: bytes, encoding: str, is_json: bool) -> otlp.Taken:  # noqa: FBT001 - as above
    return await asyncio.to_thread(_read, body, encoding, is_json)


async def _body(request: Request) -> bytes:
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(found)


def _decompressed(body: bytes, encoding: str) -> bytes:
    """The body without its encoding, of which no more than is allowed is ever made."""
    if encoding in ("", "identity"):
        return body
    if encoding not in _WBITS:
        message = f"the content encoding {encoding[:50]!r} is not known: give gzip, deflate or none"
        raise MlflowError(message, status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    reader = zlib.decompressobj(_WBITS[encoding])
    try:
        found = reader.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise MlflowError(f"the body is no {encoding}: {error}") from None
    if len(found) > MAX_BODY_BYTES:
        raise _too_large()
    if not reader.eof:
        raise MlflowError(f"the body is no whole {encoding}")
    return found


def _too_large() -> MlflowError:
    return MlflowError(f"a body has at most {MAX_BODY_BYTES} bytes", status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def _answer(message: Message, status: HTTPStatus = HTTPStatus.OK, *, is_json: bool) -> Response:
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status in _RETRIED else None
    if is_json:
        return Response(MessageToJson(message, indent=None), status, headers=headers, media_type=JSON)
    return Response(message.SerializeToString(), status, headers=headers, media_type=PROTOBUF)


def _refusal(error: Exception, *, is_json: bool) -> Response:
    found = translated(error)
    status = found.status
    if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.ABORTED:
        status = HTTPStatus.SERVICE_UNAVAILABLE
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("otlp_export_failed", exc_info=error)
    told = status_pb2.Status(code=_CODES.get(status, code_pb2.INTERNAL), message=found.message)
    return _answer(told, status, is_json=is_json)
