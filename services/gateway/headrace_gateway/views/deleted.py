"""Runs that were put away: brought back, or purged after a look at what that would free and a typed confirmation."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Final
from uuid import UUID, uuid4, uuid5

import grpc
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import VIEW_DELETED
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform
from headrace_gateway.views.history import moment_of
from headrace_gateway.views.runs import whole
from headrace_gateway.web import explained, field, form_of
from headrace_kit.errors import Aborted, InvalidArgument, KitError

ROWS: Final = 100
"""Runs of one page, and most that are purged at once."""
AGES_H: Final = ((720, "30 days"), (168, "7 days"), (24, "a day"), (1, "an hour"), (0, "any time"))
_AT_ONCE: Final = 16
_AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """``/runs/deleted``."""

    async def page(
        request: Request,
        *,
        found: service.PurgeRunsResponse | None = None,
        purged: service.PurgeRunsResponse | None = None,
        before: str = "",
        age: int = AGES_H[0][0],
        problem: str = "",
        status: HTTPStatus = HTTPStatus.OK,
    ) -> Response:
        skip = whole(request.query_params, "from")
        asked = service.SearchRunsRequest(parent=platform.parent, view=VIEW_DELETED, page_size=ROWS + 1, skip=skip)
        runs = list((await platform.read.tracking.SearchRuns(asked)).runs)
        return pages.render(
            request,
            "deleted.html",
            runs=runs[:ROWS],
            skip=skip,
            more=len(runs) > ROWS,
            rows=ROWS,
            sizes={each.name: sum(one.object.size_bytes for one in each.artifacts) for each in runs},
            ages=AGES_H,
            found=found,
            purged=purged,
            before=before,
            age=age,
            seen=digest_of(found) if found else "",
            phrase=phrase_of(found) if found else "",
            problem=problem,
            status=status,
        )

    async def show(request: Request) -> Response:
        return await page(request)

    async def preview(before: datetime) -> service.PurgeRunsResponse:
        asked = service.PurgeRunsRequest(
            command_id=str(uuid4()), parent=platform.parent, limit=ROWS, validate_only=True
        )
        asked.deleted_before.FromDatetime(before)
        found: service.PurgeRunsResponse = await platform.act.tracking.PurgeRuns(asked)
        return found

    async def act(request: Request) -> Response:
        form, action = await form_of(request), request.path_params["action"]
        before, found = "", None
        try:
            match action:
                case "restore":
                    await restore(form)
                    return RedirectResponse("/runs/deleted", HTTPStatus.SEE_OTHER)
                case "preview":
                    hours = _hours(form)
                    moment = datetime.now(UTC) - timedelta(hours=hours)
                    return await page(request, found=await preview(moment), before=moment.isoformat(), age=hours)
                case "purge":
                    before = field(form, "before")
                    found = await preview(moment_of(before))
                    require_word(found, form)
                    return await page(request, purged=await purge(form, before))
                case _:
                    raise InvalidArgument(f"there is no action {action}")
        except (KitError, grpc.aio.AioRpcError) as error:
            if isinstance(error, grpc.aio.AioRpcError) and error.code() in _AWAY:
                raise
            status, message = explained(error)
            return await page(request, found=found, before=before, problem=message, status=status)

    async def restore(form: FormData) -> None:
        names = [f"{platform.parent}/runs/{each}" for each in form.getlist("run")]
        if not names:
            raise InvalidArgument("choose runs first", field="run")
        base = _uuid(form)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def bring_back(name: str) -> None:
            command = service.RestoreRunRequest(command_id=str(uuid5(base, name)), run=name)
            async with gate:
                await platform.act.tracking.RestoreRun(command)

        await asyncio.gather(*(bring_back(each) for each in names))

    async def purge(form: FormData, before: str) -> service.PurgeRunsResponse:
        command = service.PurgeRunsRequest(command_id=str(_uuid(form)), parent=platform.parent, limit=ROWS)
        command.deleted_before.FromDatetime(moment_of(before))
        done: service.PurgeRunsResponse = await platform.act.tracking.PurgeRuns(command)
        return done

    return [
        Route("/runs/deleted", show, methods=["GET"]),
        Route("/runs/deleted/{action}", act, methods=["POST"]),
    ]


def phrase_of(found: service.PurgeRunsResponse) -> str:
    """What a person types to purge what was found."""
    return f"purge {len(found.runs)} {'run' if len(found.runs) == 1 else 'runs'}"


def digest_of(found: service.PurgeRunsResponse) -> str:
    """Which runs a preview showed."""
    return hashlib.sha256("\n".join(each.run for each in found.runs).encode()).hexdigest()


def require_word(found: service.PurgeRunsResponse, form: FormData) -> None:
    """That a person saw these runs, and typed what is asked for. Raises Aborted and InvalidArgument."""
    if field(form, "seen") != digest_of(found):
        raise Aborted("what would be purged has changed since you looked: here it is as it is now")
    if field(form, "confirm") != phrase_of(found):
        raise InvalidArgument(f"type {phrase_of(found)!r} to purge them", field="confirm")


def _hours(form: FormData) -> int:
    text = field(form, "age")
    if text not in {str(each) for each, _ in AGES_H}:
        raise InvalidArgument("choose since when", field="age")
    return int(text)


def _uuid(form: FormData) -> UUID:
    try:
        return UUID(field(form, "command_id"))
    except ValueError:
        raise InvalidArgument("the form has no id: load the page again", field="command_id") from None
