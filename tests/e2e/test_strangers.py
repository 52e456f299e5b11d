"""Who is not known is told nothing: every call and route there is, without a token and with a wrong one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import grpc
import httpx2
import pytest
from starlette.routing import BaseRoute, Mount, Route

from headrace_gateway.views import routes
from headrace_gateway.web import build_web
from headrace_serving.rest import Rest
from tests.support.calls import Method, call, methods
from tests.support.platform import Platform

pytestmark = pytest.mark.timeout(180)


class _Nobody:
    """Stands where a service would: routes are made and never answered."""

    def __getattr__(self, name: str) -> Any:
        return self


NOBODY: Final[Any] = _Nobody()
OPEN: Final = {"/enter", "/healthz", "/static"}
WRONG: Final = ("", "Bearer", "Bearer wrong", "Basic eDp5", f"Bearer {'x' * 43}")


def called(found: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Method and path of each route, its parameters filled in."""
    for each in found:
        if isinstance(each, Mount):
            yield "GET", f"{each.path}/x"
        elif isinstance(each, Route):
            for method in each.methods or ():
                yield method, re.sub(r"\{[^}]*\}", "x", each.path)


def console_routes() -> list[tuple[str, str]]:
    web = build_web(
        NOBODY,
        sessions=NOBODY,
        tokens=NOBODY,
        routes=routes(NOBODY, NOBODY, NOBODY, NOBODY, NOBODY),
    )
    return sorted(set(called(web.routes)))


REST_ROUTES: Final = sorted(set(called(Rest(NOBODY, NOBODY, NOBODY).application().routes)))
CONSOLE_ROUTES: Final = [each for each in console_routes() if not each[1].startswith(tuple(OPEN))]


@pytest.mark.parametrize("method", methods(), ids=str)
def test_no_call_is_answered_to_a_stranger(platform: Platform, method: Method) -> None:
    address = platform.connection.address(method.service)
    with grpc.insecure_channel(address) as channel:
        for token in WRONG:
            metadata = [("authorization", token)] if token else []
            outcome = call(channel, method, [b""], metadata=metadata)
            assert outcome.code is grpc.StatusCode.UNAUTHENTICATED, (token, outcome)
            assert outcome.reason in ("TOKEN_MISSING", "TOKEN_INVALID"), outcome


@pytest.mark.parametrize(("method", "path"), REST_ROUTES)
def test_no_route_of_the_inference_protocol_is_answered_to_a_stranger(
    platform: Platform, method: str, path: str
) -> None:
    for token in WRONG:
        answer = httpx2.request(
            method, f"{platform.connection.serving_url}{path}", headers={"authorization": token} if token else {}
        )
        assert answer.status_code == 401, (token, answer.text)


@pytest.mark.parametrize(("method", "path"), CONSOLE_ROUTES)
def test_no_page_or_form_of_the_console_is_answered_to_a_stranger(platform: Platform, method: str, path: str) -> None:
    url = f"{platform.connection.gateway_url}{path}"
    for token in WRONG:
        answer = httpx2.request(method, url, headers={"authorization": token} if token else {})
        assert answer.status_code == 401, (token, answer.text)
    assert httpx2.request(method, url, cookies={"headrace_session": "a.9999999999.b"}).status_code == 401


def test_every_form_of_the_console_needs_the_token_of_its_session(platform: Platform) -> None:
    forms = [path for method, path in CONSOLE_ROUTES if method == "POST"]
    assert len(forms) >= 5
    with httpx2.Client(base_url=platform.connection.gateway_url) as browser:
        browser.get(platform.stack.console_link())
        assert browser.get("/runs").status_code == 200
        for path in forms:
            for fields in ({}, {"csrf": ""}, {"csrf": "0" * 64}):
                assert browser.post(path, data=fields).status_code == 403, (path, fields)
        assert browser.get("/runs").status_code == 200
