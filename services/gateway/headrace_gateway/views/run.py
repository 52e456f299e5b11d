"""One run: what it is, recorded, stored, ran on, came from, and how to do it again."""

from __future__ import annotations

import asyncio
import shlex
from typing import Final
from urllib.parse import quote

import grpc
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headrace.api.orchestrator.v1 import service_pb2 as orchestrator
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import (
    ARTIFACT_KIND_DIFF,
    Artifact,
    ArtifactKind,
    Run,
    RunStatus,
)
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform, ServiceMissingError
from headrace_gateway.views.lineage import WITHIN_S, lineage
from headrace_gateway.views.runs import whole
from headrace_gateway.watching import Watches, place_of
from headrace_kit.errors import InvalidArgument, NotFound
from headrace_kit.objects import ObjectStore

MAX_SHOWN: Final = 16 * 1024 * 1024
"""Largest artifact that is handed out here, bytes."""
OUTPUT_SHOWN: Final = 512 * 1024
"""Bytes of a run's output that its page begins with: the newest."""
PICTURES: Final = ("image/svg+xml", "image/png", "image/jpeg", "image/webp", "image/gif")
SOUNDS: Final = ("audio/wav", "audio/x-wav", "audio/mpeg", "audio/ogg", "audio/flac", "audio/webm")
PAGES: Final = ("text/html", "application/xhtml+xml")
"""What may hold scripts, as figures of plotly do: shown in a frame that has no right of this site, when asked for."""
FRAMED: Final = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline';"
    " img-src data: blob:; font-src data:; media-src data:; worker-src blob:; frame-ancestors 'self'"
)
TABLES: Final = ("text/csv", "text/tab-separated-values")
SYSTEM: Final = "system/"
"""What the keys of metrics about the machine begin with."""
PLAIN: Final = ("text/", "application/json")


def routes(platform: Platform, pages: Pages, objects: ObjectStore, watches: Watches) -> list[BaseRoute]:
    """The page of a run, and its files."""

    async def get(run_id: str) -> Run:
        request = service.GetRunRequest(name=f"{platform.parent}/runs/{run_id}")
        found: Run = (await platform.read.tracking.GetRun(request)).run
        return found

    async def show(request: Request) -> Response:
        run = await get(request.path_params["run"])
        if "hx-request" in request.headers:
            return pages.render(request, "_run.html", run=run, RunStatus=RunStatus)
        graph, steps = await asyncio.gather(lineage(platform, run), steps_of(platform, run))
        charted = [key for key, summary in run.metrics.items() if summary.count > 1]
        return pages.render(
            request,
            "run.html",
            run=run,
            RunStatus=RunStatus,
            Kind=ArtifactKind,
            pictures=PICTURES,
            sounds=SOUNDS,
            preview=preview,
            keys=charted,
            system=[key for key in charted if key.startswith(SYSTEM)],
            logs=[each for each in run.artifacts if is_log(each)],
            diffs=[each for each in run.artifacts if each.kind == ARTIFACT_KIND_DIFF],
            steps=steps,
            graph=graph,
            commands=reproduce(run, str(request.base_url).rstrip("/")),
        )

    async def requirements(request: Request) -> Response:
        run = await get(request.path_params["run"])
        text = "".join(f"{each.name}=={each.version}\n" for each in run.environment.packages)
        headers = {"Content-Disposition": 'attachment; filename="requirements.txt"'}
        return Response(text, media_type="text/plain; charset=utf-8", headers=headers)

    async def watch(request: Request) -> Response:
        session = request.state.session
        return await watches.open(
            f"{platform.parent}/runs/{request.path_params['run']}",
            client=session.id if session else request.headers["authorization"],
            after_us=place_of(request.headers.get("last-event-id", request.query_params.get("after", ""))),
            last_bytes=OUTPUT_SHOWN,
        )

    async def artifact(request: Request) -> Response:
        run = await get(request.path_params["run"])
        path = request.path_params["path"]
        found = next((each for each in run.artifacts if each.path == path), None)
        if found is None:
            raise NotFound("artifact", path)
        if found.object.size_bytes > MAX_SHOWN:
            raise InvalidArgument(f"{path} is too large for the console: fetch it with the SDK", field="path")
        kind = found.object.media_type
        shown = kind in PICTURES or kind in SOUNDS or kind.startswith(PLAIN)
        # What a run stored is shown without any right of this site: no script in it runs, HTML is text.
        headers = {
            "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
            "Cache-Control": "private, max-age=3600",
        }
        if not shown:
            headers["Content-Disposition"] = "attachment"
        plain = "text/plain; charset=utf-8" if kind.startswith(PLAIN) else kind
        # Only a frame of ours gets a page: opened by itself, or by a browser that does not say where, it is text.
        if kind in PAGES and "framed" in request.query_params and request.headers.get("sec-fetch-dest") == "iframe":
            plain = "text/html; charset=utf-8"
            headers |= {"Content-Security-Policy": FRAMED, "Cache-Control": "no-store", "Vary": "Sec-Fetch-Dest"}
        content = await objects.get(found.object)
        if most := whole(request.query_params, "head"):
            content = content[:most]
        return Response(content, media_type=plain if shown else "application/octet-stream", headers=headers)

    return [
        Route("/runs/{run}", show),
        Route("/runs/{run}/requirements.txt", requirements),
        Route("/runs/{run}/watch", watch),
        Route("/runs/{run}/artifacts/{path:path}", artifact),
    ]


def preview(artifact: Artifact) -> str:
    """How the page shows a file: ``page``, ``json``, ``table``, ``diff``, ``text``, or not at all (empty)."""
    kind = artifact.object.media_type
    if artifact.object.size_bytes > MAX_SHOWN or not kind.startswith(PLAIN):
        return ""
    if kind in PAGES:
        return "page"
    if artifact.kind == ARTIFACT_KIND_DIFF or artifact.path.endswith((".diff", ".patch")):
        return "diff"
    if kind == "application/json" or artifact.path.endswith(".json"):
        return "json"
    return "table" if kind in TABLES or artifact.path.endswith((".csv", ".tsv")) else "text"


def is_log(artifact: Artifact) -> bool:
    """Whether a file is what a program wrote while it ran."""
    logged = artifact.path.startswith("logs/") or artifact.path.endswith((".log", "stdout.txt", "stderr.txt"))
    return logged and artifact.object.media_type.startswith("text/")


def reproduce(run: Run, url: str) -> str:
    """Shell commands that do what the run did, as far as it told what that was."""
    code, identity = run.code, run.name.rpartition("/")[2]
    lines: list[str] = []
    if code.commit and code.command_line and run.environment.packages:
        lines += [f"headrace reproduce {identity}", "", "# or by hand:"]
    if code.remote:
        lines.append(f"git clone {shlex.quote(code.remote)} again && cd again")
    if code.commit:
        lines.append(f"git checkout {shlex.quote(code.commit)}")
    files = f"{url}/runs/{identity}"
    lines.extend(
        f"git apply {shlex.quote(each.path.rpartition('/')[2])}  # from {files}/artifacts/{quote(each.path)}"
        for each in run.artifacts
        if each.kind == ARTIFACT_KIND_DIFF
    )
    if run.environment.packages:
        version = ".".join(run.environment.python.split(".")[:2])
        lines.append(f"python{version} -m venv again-venv && . again-venv/bin/activate")
        lines.append(f"pip install -r requirements.txt  # from {files}/requirements.txt")
    if code.command_line:
        lines.append(code.command_line)
    return "\n".join(lines)


async def steps_of(platform: Platform, run: Run) -> list[str]:
    """Steps of the pipeline run that the run is of; empty when there is none, or none is told."""
    if not run.pipeline_run:
        return []
    request = orchestrator.GetPipelineRunRequest(name=run.pipeline_run)
    try:
        found = await platform.read.orchestrator.GetPipelineRun(request, timeout=WITHIN_S)
    except (grpc.aio.AioRpcError, ServiceMissingError):
        return []
    return [each.id for each in found.run.steps]
