"""Serving over gRPC: request -> checks -> command or query -> response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from headrace.api.serving.v1 import service_pb2 as service
from headrace.api.serving.v1.resources_pb2 import Endpoint
from headrace.api.serving.v1.service_pb2_grpc import ServingServiceServicer
from headrace_kit.context import CommandContext
from headrace_kit.errors import FailedPrecondition
from headrace_kit.masks import picked
from headrace_kit.names import ENDPOINT as ENDPOINT_NAME
from headrace_kit.names import PROJECT
from headrace_kit.paging import page_of
from headrace_kit.rpc import command_context
from headrace_serving import domain, requests
from headrace_serving.endpoints import Endpoints
from headrace_serving.registry import Registry
from headrace_serving.rollout import ACTOR
from headrace_serving.router import Router
from headrace_serving.store import EndpointStore
from headrace_serving.telemetry import PredictionLog

R = TypeVar("R", bound=Message)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method
Decide = Callable[[Endpoint | None, CommandContext], Sequence[Message]]


class ServingServicer(ServingServiceServicer):
    """Answers serving's calls.

    Args:
        commands: The endpoints' streams.
        endpoints: The read model.
        router: What answers, and what was counted.
        registry: Where versions, aliases and gates are.
        log: Where predictions go.
    """

    def __init__(
        self, commands: Endpoints, endpoints: EndpointStore, router: Router, registry: Registry, log: PredictionLog
    ) -> None:
        self._commands, self._endpoints, self._router = commands, endpoints, router
        self._registry, self._log = registry, log

    async def CreateEndpoint(
        self, request: service.CreateEndpointRequest, context: Context
    ) -> service.CreateEndpointResponse:
        requests.check_create(request)
        command_context(request.command_id)
        alias = await self._registry.alias(request.model, request.alias or domain.ALIAS)
        version = f"{request.model}/versions/{alias.version}" if alias else ""
        revision = alias.revision if alias else 0
        # An alias that moves meanwhile, before the endpoint exists to follow it, is seen by the Reconciler.
        return await self._command(
            request.name,
            request,
            lambda state, command: domain.decide_create(
                state, request, command, version=version, alias_revision=revision
            ),
            lambda endpoint: service.CreateEndpointResponse(endpoint=endpoint),
        )

    async def GetEndpoint(self, request: service.GetEndpointRequest, context: Context) -> service.GetEndpointResponse:
        ENDPOINT_NAME.parse(request.name, field="name")
        return service.GetEndpointResponse(endpoint=await self._commands.get(request.name))

    async def ListEndpoints(
        self, request: service.ListEndpointsRequest, context: Context
    ) -> service.ListEndpointsResponse:
        project = PROJECT.parse(request.parent, field="parent")["project"]
        page = page_of(request)
        found = await self._endpoints.list_endpoints(project, after=page.after, limit=page.limit)
        token = page.token(found[-1].name, count=len(found)) if found else ""
        shown = picked(found, request.read_mask, kind=Endpoint)
        return service.ListEndpointsResponse(endpoints=shown, next_page_token=token)

    async def ConfigureEndpoint(
        self, request: service.ConfigureEndpointRequest, context: Context
    ) -> service.ConfigureEndpointResponse:
        requests.check_configure(request)
        return await self._command(
            request.name,
            request,
            lambda state, _: domain.decide_configure(state, request),
            lambda endpoint: service.ConfigureEndpointResponse(endpoint=endpoint),
        )

    async def SetRoutes(self, request: service.SetRoutesRequest, context: Context) -> service.SetRoutesResponse:
        requests.check_routes(request)
        command_context(request.command_id)
        endpoint = await self._commands.get(request.name)
        domain.decide_routes(endpoint, request)
        for each in request.routes:
            if each.weight:
                await self._router.load(each.version, allow_pickle=endpoint.allow_pickle)
        return await self._command(
            request.name,
            request,
            lambda state, _: domain.decide_routes(state, request),
            lambda endpoint: service.SetRoutesResponse(endpoint=endpoint),
        )

    async def StartRollout(
        self, request: service.StartRolloutRequest, context: Context
    ) -> service.StartRolloutResponse:
        requests.check_rollout(request)
        command = command_context(request.command_id)
        endpoint = await self._commands.get(request.endpoint, field="endpoint")
        if endpoint.rollout.id != str(command.command_id):  # a repeat of the same command is answered as it was
            await self._require_promotable(endpoint, request, command)
        return await self._command(
            request.endpoint,
            request,
            lambda state, command: domain.decide_rollout(state, request, command),
            lambda endpoint: service.StartRolloutResponse(endpoint=endpoint),
        )

    async def AbortRollout(
        self, request: service.AbortRolloutRequest, context: Context
    ) -> service.AbortRolloutResponse:
        ENDPOINT_NAME.parse(request.endpoint, field="endpoint")
        requests.check_reason(request.reason)
        return await self._command(
            request.endpoint,
            request,
            lambda state, _: domain.decide_abort(state, endpoint=request.endpoint, reason=request.reason),
            lambda endpoint: service.AbortRolloutResponse(endpoint=endpoint),
        )

    async def BlockVersion(
        self, request: service.BlockVersionRequest, context: Context
    ) -> service.BlockVersionResponse:
        requests.check_change(request.endpoint, request.version, request.reason)
        return await self._command(
            request.endpoint,
            request,
            lambda state, command: domain.decide_block(
                state, endpoint=request.endpoint, version=request.version, reason=request.reason, context=command
            ),
            lambda endpoint: service.BlockVersionResponse(endpoint=endpoint),
        )

    async def UnblockVersion(
        self, request: service.UnblockVersionRequest, context: Context
    ) -> service.UnblockVersionResponse:
        requests.check_change(request.endpoint, request.version, request.reason)
        return await self._command(
            request.endpoint,
            request,
            lambda state, _: domain.decide_unblock(
                state, endpoint=request.endpoint, version=request.version, reason=request.reason
            ),
            lambda endpoint: service.UnblockVersionResponse(endpoint=endpoint),
        )

    async def GetTraffic(self, request: service.GetTrafficRequest, context: Context) -> service.GetTrafficResponse:
        ENDPOINT_NAME.parse(request.endpoint, field="endpoint")
        await self._commands.get(request.endpoint, field="endpoint")
        counts = self._log.counts
        return service.GetTrafficResponse(
            versions=[each.message() for each in self._router.traffic(request.endpoint)],
            events_dropped=counts.dropped + counts.failed,
            events_sent=counts.acknowledged,
        )

    async def _require_promotable(
        self, endpoint: Endpoint, request: service.StartRolloutRequest, command: CommandContext
    ) -> None:
        """Refuses early what could not be promoted at the end, or not even loaded."""
        domain.decide_rollout(endpoint, request, command)
        unmet = await self._registry.unmet_gates(request.version, endpoint.alias, actor=ACTOR)
        if unmet:
            reasons = "; ".join(each.description for each in unmet)
            raise FailedPrecondition(
                f"{request.version} can not be {endpoint.alias}: {reasons}",
                unmet,
                field="version",
                reason="GATES_UNMET",
            )
        await self._router.load(request.version, allow_pickle=endpoint.allow_pickle)

    async def _command(self, name: str, request: Message, decide: Decide, respond: Callable[[Endpoint], R]) -> R:
        # Every command has the field; protobuf has no name for that.
        command = command_context(request.command_id)  # type: ignore[attr-defined]
        return await self._commands.execute(
            name, context=command, request=request, decide=lambda state: decide(state, command), respond=respond
        )
