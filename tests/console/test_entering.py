"""Who may enter: a session by the one-time link, or an operator's token; nobody else."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2 as httpx
import pytest

from tests.console.conftest import Console

pytestmark = pytest.mark.timeout(300)

CLOSED = (
    "/",
    "/runs",
    "/runs/charts",
    "/runs/rows",
    "/models",
    "/endpoints",
    "/drift",
    "/pipelines",
    "/events",
    "/live",
    "/parts/stages",
    "/nothing",
)


@pytest.fixture
def stranger(console: Console) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=console.url, timeout=10) as client:
        yield client


@pytest.mark.parametrize("path", CLOSED)
def test_no_page_without_a_session(stranger: httpx.Client, path: str) -> None:
    asked_by_a_browser = stranger.get(path, headers={"Accept": "text/html"})
    asked_by_a_program = stranger.get(path)

    assert (asked_by_a_browser.status_code, asked_by_a_browser.headers["location"]) == (303, "/enter")
    assert asked_by_a_program.status_code == 401


def test_the_link_opens_the_console_once(console: Console, stranger: httpx.Client) -> None:
    link = console.link()
    assert stranger.head(link).status_code == 401  # a program that looks at links does not use it up

    first = stranger.get(link)
    cookie = first.headers["set-cookie"].lower()
    second = httpx.get(link)

    assert first.status_code == 303
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert second.status_code == 401
    assert "set-cookie" not in second.headers
    assert stranger.get("/runs").status_code == 200


@pytest.mark.parametrize("change", [lambda c: c[:-1] + "0", lambda c: c[1:], lambda c: "9" * 5000, lambda _: "a.1.b"])
def test_a_cookie_that_was_changed_is_nobodys(console: Console, stranger: httpx.Client, change: object) -> None:
    assert callable(change)
    stranger.get(console.link())
    name, value = next(iter(stranger.cookies.items()))
    changed = str(change(value))

    answer = httpx.get(f"{console.url}/runs", cookies={name: changed if changed != value else "x"})

    assert answer.status_code == 401


def test_a_token_enters_without_a_session_if_it_is_an_operators(console: Console, stranger: httpx.Client) -> None:
    def status(token: str) -> int:
        return stranger.get("/runs", headers={"Authorization": f"Bearer {token}"}).status_code

    assert status(console.operator().connection.token) == 200
    assert status(console.service().connection.token) == 403
    assert status("wrong") == 401


def test_leaving_ends_the_session(console: Console, stranger: httpx.Client) -> None:
    stranger.get(console.link())
    page = stranger.get("/runs").text
    csrf = page.partition('name="csrf" value="')[2].partition('"')[0]

    left = stranger.post("/leave", data={"csrf": csrf})

    assert left.headers["location"] == "/enter"
    assert stranger.get("/runs").status_code == 401


def test_every_answer_says_what_a_browser_may_do_with_it(console: Console, stranger: httpx.Client) -> None:
    stranger.get(console.link())
    for path in ("/", "/nothing", "/static/console.css", "/healthz", f"/runs/{console.runs[0]}"):
        headers = stranger.get(path, headers={"Accept": "text/html"}).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/runs", "/live", "/events", "/static/console.js", "/nothing"])
def test_a_head_request_ends_and_has_no_body(console: Console, stranger: httpx.Client, path: str) -> None:
    stranger.get(console.link())
    answer = stranger.head(path)

    assert answer.content == b""
    assert answer.status_code == (404 if path == "/nothing" else 200)


def test_a_form_that_is_too_large_is_refused(console: Console, stranger: httpx.Client) -> None:
    stranger.get(console.link())

    answer = stranger.post("/models/delays/approve", data={"csrf": "x", "reason": "y" * 300_000})

    assert answer.status_code == 413
