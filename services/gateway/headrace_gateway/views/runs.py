"""The table of runs: its frame, rows as they are looked at, keys, groups, and what is done to many runs at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final
from uuid import UUID, uuid5

import grpc
from starlette.datastructures import FormData, QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import Run
from headrace_gateway.columns import ATTRIBUTES, UNSORTED, Column, finite, parse_columns
from headrace_gateway.pages import Pages, label, short
from headrace_gateway.platform import Platform
from headrace_gateway.selecting import Selection
from headrace_gateway.web import explained, field, form_of
from headrace_kit.errors import InvalidArgument

ROWS: Final = 200
"""Most rows of one answer."""
DEFAULT_COLUMNS: Final = ("status", "experiment", "start_time", "duration_s")
METRICS: Final = 4
"""Metrics that the table shows when it is not told which."""
_AT_ONCE: Final = 16
_PLACE: Final = re.compile(r"at character (\d+)")


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """The table of runs."""

    async def table(request: Request) -> Response:
        experiments = service.ListExperimentsRequest(parent=platform.parent, page_size=1000)
        listed = await platform.read.tracking.ListExperiments(experiments)
        return pages.render(
            request,
            "runs.html",
            experiments=listed.experiments,
            attributes=ATTRIBUTES,
            unsorted=UNSORTED,
            defaults=DEFAULT_COLUMNS,
            done=request.query_params.get("done", ""),
        )

    async def rows(request: Request) -> Response:
        query, selection = request.query_params, Selection.of(request.query_params)
        columns = parse_columns(query.getlist("column"))
        wanted = service.SearchRunsRequest(
            parent=platform.parent,
            filter=selection.filter,
            order_by=selection.order,
            experiments=selection.experiments(platform),
            skip=whole(query, "from"),
            page_size=min(whole(query, "count", 100) or 1, ROWS),
        )
        found = await platform.read.tracking.SearchRuns(wanted)
        return JSONResponse({"rows": [_row(run, columns, pages.named) for run in found.runs]}, headers=_FRESH)

    async def keys(request: Request) -> Response:
        selection = Selection.of(request.query_params)
        found = await platform.read.tracking.GetRunKeys(
            service.GetRunKeysRequest(
                parent=platform.parent, filter=selection.filter, experiments=selection.experiments(platform)
            )
        )
        return JSONResponse(
            {
                "runs": found.run_count,
                **{kind: [each.key for each in getattr(found, kind)] for kind in ("params", "metrics", "tags")},
                "frequent": sorted(each.key for each in found.metrics[:METRICS]),
            },
            headers=_FRESH,
        )

    async def groups(request: Request) -> Response:
        query, selection = request.query_params, Selection.of(request.query_params)
        by = Column.parse(query.get("group", ""))
        numbers = [each for each in parse_columns(query.getlist("column")) if each.is_number]
        found = await platform.read.tracking.GetRunGroups(
            service.GetRunGroupsRequest(
                parent=platform.parent,
                filter=selection.filter,
                experiments=selection.experiments(platform),
                group_by=by.subject,
                values=", ".join(each.subject for each in numbers),
            )
        )
        told = [
            {
                "value": group.value if group.HasField("value") else None,
                "runs": group.run_count,
                "stats": [[each.count, finite(each.mean), finite(each.std)] for each in group.stats],
            }
            for group in found.groups
        ]
        answer = {"by": by.subject, "columns": [each.name for each in numbers], "groups": told, "more": found.more}
        return JSONResponse(answer, headers=_FRESH)

    async def act(request: Request) -> Response:
        form = await form_of(request)
        names = await _chosen(form).names(platform)
        if not names:
            raise InvalidArgument("choose runs in the table first", field="run")
        command = _command(platform, request.path_params["action"], form)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def carry_out(name: str) -> None:
            async with gate:
                await command(name)

        await asyncio.gather(*(carry_out(each) for each in names))
        back = QueryParams(field(form, "back"))
        query = QueryParams([*((name, value) for name, value in back.multi_items() if name != "done"), *_done(names)])
        return RedirectResponse(f"/runs?{query}", HTTPStatus.SEE_OTHER)

    return [
        Route("/runs", table),
        Route("/runs/rows", _told(rows)),
        Route("/runs/keys", _told(keys)),
        Route("/runs/groups", _told(groups)),
        Route("/runs/act/{action}", act, methods=["POST"]),
    ]


_FRESH: Final = {"Cache-Control": "no-store"}


def whole(query: QueryParams, name: str, otherwise: int = 0, *, digits: int = 8) -> int:
    """A whole number of an address. Raises InvalidArgument."""
    text = query.get(name, "")
    if text and not (text.isascii() and text.isdecimal() and len(text) <= digits):
        raise InvalidArgument(f"give a number for {name}", field=name)
    return int(text) if text else otherwise


def place_of(message: str) -> int:
    """The character that a refusal of the search language points at, from 1; 0 when it names none."""
    found = _PLACE.search(message)
    return int(found[1]) if found else 0


def _told(
    answer: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Tells the page, as data, what is wrong with a filter or an order."""

    async def told(request: Request) -> Response:
        try:
            return await answer(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            _, message = explained(error)
            return JSONResponse({"problem": message, "place": place_of(message)}, headers=_FRESH)

    return told


def _row(run: Run, columns: list[Column], named: Callable[[str], str]) -> dict[str, object]:
    cells = [named(run.actor) or short(run.actor) if each.key == "by" else each.cell(run) for each in columns]
    return {"id": short(run.name), "name": run.display_name or label(run.name), "cells": cells}


def _chosen(form: FormData) -> Selection:
    if not field(form, "run") and not field(form, "all"):
        raise InvalidArgument("choose runs in the table first", field="run")
    names = ("run", "filter", "experiment")
    return Selection.of(QueryParams([(each, field(form, each)) for each in names if field(form, each)]))


def _command(platform: Platform, action: str, form: FormData) -> Callable[[str], Awaitable[object]]:
    """What is done to each run; ids of commands are made of the form's and the run's, so that a second time is none."""
    tracking, base = platform.act.tracking, _uuid(field(form, "command_id"))

    def id_of(run: str) -> str:
        return str(uuid5(base, run))

    match action:
        case "tag":
            key, value = field(form, "key"), field(form, "value")
            if not key:
                raise InvalidArgument("give the tag's key", field="key")
            away = bool(field(form, "remove"))
            new: dict[str, str] = {} if away else {key: value}
            removed = [key] if away else []
            return lambda run: tracking.ChangeTags(
                service.ChangeTagsRequest(command_id=id_of(run), run=run, set=new, removed=removed)
            )
        case "delete":
            return lambda run: tracking.DeleteRun(service.DeleteRunRequest(command_id=id_of(run), run=run))
        case _:
            raise InvalidArgument(f"there is no action {action}")


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidArgument("the form has no id: load the page again", field="command_id") from None


def _done(names: list[str]) -> list[tuple[str, str]]:
    return [("done", str(len(names)))]
