"""Pipelines and their runs: the graph, how far it is, what the steps wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform
from headrace_gateway.views.graph import Graph, draw
from headrace_gateway.web import field, form_of
from headrace_kit.errors import InvalidArgument

LOG_SHOWN: Final = 256 * 1024
"""Characters of a step's log that the page shows: the newest."""
_PAGES: Final = 1000


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """Every page about pipelines."""
    read, act = platform.read, platform.act

    async def listing(request: Request) -> Response:
        known, recent = await asyncio.gather(
            read.orchestrator.ListPipelines(service.ListPipelinesRequest(parent=platform.parent, page_size=1000)),
            read.orchestrator.ListPipelineRuns(service.ListPipelineRunsRequest(parent=platform.parent, page_size=100)),
        )
        template = "_pipelines.html" if "hx-request" in request.headers else "pipelines.html"
        return pages.render(
            request, template, pipelines=known.pipelines, runs=recent.runs, Status=resources.PipelineRunStatus
        )

    async def show(request: Request) -> Response:
        name = f"{platform.parent}/pipelineRuns/{request.path_params['run']}"
        run = (await read.orchestrator.GetPipelineRun(service.GetPipelineRunRequest(name=name))).run
        template = "_pipeline_run.html" if "hx-request" in request.headers else "pipeline_run.html"
        return pages.render(
            request,
            template,
            run=run,
            graph=graph(run),
            Status=resources.PipelineRunStatus,
            StepStatus=resources.StepStatus,
        )

    async def logs(request: Request) -> Response:
        run, step = request.path_params["run"], request.path_params["step"]
        text, offset = "", 0
        for _ in range(_PAGES):
            wanted = service.ReadStepLogsRequest(run=f"{platform.parent}/pipelineRuns/{run}", step=step, offset=offset)
            found = await read.orchestrator.ReadStepLogs(wanted)
            text = (text + found.text)[-LOG_SHOWN:]
            if found.end or found.next_offset <= offset:
                break
            offset = found.next_offset
        return pages.render(request, "_logs.html", text=text, step=step, cut=len(text) == LOG_SHOWN)

    async def change(request: Request) -> Response:
        form = await form_of(request)
        path = f"/pipelines/runs/{request.path_params['run']}"
        name, command_id = f"{platform.parent}/pipelineRuns/{request.path_params['run']}", field(form, "command_id")
        match request.path_params["action"]:
            case "cancel":
                cancel = service.CancelPipelineRunRequest(command_id=command_id, run=name, reason=field(form, "reason"))
                await act.orchestrator.CancelPipelineRun(cancel)
            case "resume":
                resume = service.ResumePipelineRunRequest(command_id=command_id, run=name)
                await act.orchestrator.ResumePipelineRun(resume)
            case action:
                raise InvalidArgument(f"there is no action {action}")
        return RedirectResponse(path, HTTPStatus.SEE_OTHER)

    async def start(request: Request) -> Response:
        form = await form_of(request)
        prefix = "parameter."
        given = {key.removeprefix(prefix): field(form, key) for key in form if key.startswith(prefix)}
        command = service.StartPipelineRunRequest(
            command_id=field(form, "command_id"),
            pipeline=f"{platform.parent}/pipelines/{request.path_params['pipeline']}",
            parameters={key: value for key, value in given.items() if value},
        )
        run = (await act.orchestrator.StartPipelineRun(command)).run
        return RedirectResponse(f"/pipelines/runs/{run.name.rpartition('/')[2]}", HTTPStatus.SEE_OTHER)

    return [
        Route("/pipelines", listing),
        Route("/pipelines/runs/{run}", show),
        Route("/pipelines/runs/{run}/{action}", change, methods=["POST"]),
        Route("/pipelines/runs/{run}/steps/{step}/logs", logs),
        Route("/pipelines/{pipeline}/start", start, methods=["POST"]),
    ]


def needed(step: resources.StepDefinition) -> list[str]:
    """Ids of the steps that must come before a step, each once, in order."""
    return list(dict.fromkeys([*_sources(step.inputs), *step.after]))


def layers(run: resources.PipelineRun) -> list[list[resources.StepState]]:
    """The steps by how many others come before them, so that each stands right of what it needs."""
    depth: dict[str, int] = {}
    for step in run.definition.steps:
        depth[step.id] = 1 + max((depth.get(each, 0) for each in needed(step)), default=0)
    found: list[list[resources.StepState]] = [[] for _ in range(max(depth.values(), default=0))]
    for state in run.steps:
        if state.id in depth:
            found[depth[state.id] - 1].append(state)
    return found


def graph(run: resources.PipelineRun) -> Graph[resources.StepState]:
    """The steps and what each needs, laid out."""
    wants = {step.id: needed(step) for step in run.definition.steps}
    return draw([[(state.id, state) for state in layer] for layer in layers(run)], wants)


def _sources(inputs: Iterable[resources.StepInput]) -> Iterator[str]:
    for each in inputs:
        match each.WhichOneof("source"):
            case "step":
                yield each.step
            case "list":
                yield from _sources(each.list.items)
            case _:
                pass
