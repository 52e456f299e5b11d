"""One run: what it is, recorded, stored, ran on, came from, and how to do it again."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import ArtifactKind, Run, RunStatus
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform
from headrace_kit.errors import InvalidArgument, NotFound
from headrace_kit.objects import ObjectStore

MAX_SHOWN: Final = 16 * 1024 * 1024
"""Largest artifact that is handed out here, bytes."""
PICTURES: Final = ("image/svg+xml", "image/png", "image/jpeg", "image/webp", "image/gif")
PLAIN: Final = ("text/", "application/json")


def routes(platform: Platform, pages: Pages, objects: ObjectStore) -> list[BaseRoute]:
    """The page of a run, and its files."""

    async def get(run_id: str) -> Run:
        request = service.GetRunRequest(name=f"{platform.parent}/runs/{run_id}")
        found: Run = (await platform.read.tracking.GetRun(request)).run
        return found

    async def show(request: Request) -> Response:
        run = await get(request.path_params["run"])
        template = "_run.html" if "hx-request" in request.headers else "run.html"
        keys = sorted(key for key, summary in run.metrics.items() if summary.count > 1)
        return pages.render(
            request,
            template,
            run=run,
            RunStatus=RunStatus,
            Kind=ArtifactKind,
            pictures=PICTURES,
            plain=PLAIN,
            keys=keys,
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
        shown = kind in PICTURES or kind.startswith(PLAIN)
        # What a run stored is shown without any right of this site: no script in it runs, HTML is text.
        headers = {
            "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
            "Cache-Control": "private, max-age=3600",
        }
        if not shown:
            headers["Content-Disposition"] = "attachment"
        plain = "text/plain; charset=utf-8" if kind.startswith(PLAIN) else kind
        content = await objects.get(found.object)
        return Response(content, media_type=plain if shown else "application/octet-stream", headers=headers)

    return [Route("/runs/{run}", show), Route("/runs/{run}/artifacts/{path:path}", artifact)]
