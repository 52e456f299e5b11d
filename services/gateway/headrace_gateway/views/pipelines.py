"""Pipelines and their runs: the graph, how far it is, what the steps wrote."""

from __future__ import annotations

from http import HTTPStatus
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform
from headrace_gateway.web import field, form_of
from headrace_kit.errors import InvalidArgument


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """Every page about pipelines."""
    orchestrator = platform.read

    async def listing(request: Request) -> Response:
        pipelines = service.ListPipelinesRequest(parent=platform.parent, page_size=1000)
        runs = service.ListPipelineRunsRequest(parent=platform.parent, page_size=100)
        return pages.render(
            request,
            "pipelines.html",
            pipelines=(await orchestrator.orchestrator.ListPipelines(pipelines)).pipelines,
            runs=(await orchestrator.orchestrator.ListPipelineRuns(runs)).runs,
            Status=resources.PipelineRunStatus,
        )

    async def get(run_id: str) -> resources.PipelineRun:
        request = service.GetPipelineRunRequest(name=f"{platform.parent}/pipelineRuns/{run_id}")
        run: resources.PipelineRun = (await orchestrator.orchestrator.GetPipelineRun(request)).run
        return run

    async def show(request: Request) -> Response:
        run = await get(request.path_params["run"])
        template = "_pipeline_run.html" if "hx-request" in request.headers else "pipeline_run.html"
        return pages.render(
            request,
            template,
            run=run,
            layers=layers(run),
            Status=resources.PipelineRunStatus,
            StepStatus=resources.StepStatus,
        )

    async def logs(request: Request) -> Response:
        wanted = service.ReadStepLogsRequest(
            run=f"{platform.parent}/pipelineRuns/{request.path_params['run']}", step=request.path_params["step"]
        )
        found = await orchestrator.orchestrator.ReadStepLogs(wanted)
        return pages.render(request, "_logs.html", text=found.text, step=request.path_params["step"])

    async def act(request: Request) -> Response:
        form = await form_of(request)
        name = f"{platform.parent}/pipelineRuns/{request.path_params['run']}"
        command_id = field(form, "command_id") or str(uuid4())
        match request.path_params["action"]:
            case "cancel":
                cancel = service.CancelPipelineRunRequest(command_id=command_id, run=name, reason=field(form, "reason"))
                await platform.act.orchestrator.CancelPipelineRun(cancel)
            case "resume":
                resume = service.ResumePipelineRunRequest(command_id=command_id, run=name)
                await platform.act.orchestrator.ResumePipelineRun(resume)
            case action:
                raise InvalidArgument(f"there is no action {action}")
        return RedirectResponse(f"/pipelines/runs/{request.path_params['run']}", HTTPStatus.SEE_OTHER)

    return [
        Route("/pipelines", listing),
        Route("/pipelines/runs/{run}", show),
        Route("/pipelines/runs/{run}/{action}", act, methods=["POST"]),
        Route("/pipelines/runs/{run}/steps/{step}/logs", logs),
    ]


def layers(run: resources.PipelineRun) -> list[list[resources.StepState]]:
    """The steps by how many others come before them, so that each stands right of what it needs."""
    depth: dict[str, int] = {}
    for step in run.definition.steps:
        needed = [each.step for each in step.inputs if each.WhichOneof("source") == "step"]
        needed.extend(getattr(step, "after", ()))
        depth[step.id] = 1 + max((depth.get(each, 0) for each in needed), default=0)
    states = {state.id: state for state in run.steps}
    found: list[list[resources.StepState]] = [[] for _ in range(max(depth.values(), default=0))]
    for step in run.definition.steps:
        if step.id in states:
            found[depth[step.id] - 1].append(states[step.id])
    return found
