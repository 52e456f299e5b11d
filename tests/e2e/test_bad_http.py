"""Whatever comes over HTTP is answered or refused in the form of its route, and never taken for markup."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headrace.client import Client
from tests.support.hostile import TEXTS
from tests.support.platform import Platform
from tests.support.serving import COLUMNS
from tests.support.world import World, build

pytestmark = pytest.mark.timeout(300)
EXAMPLES = int(os.environ.get("HEADRACE_BAD_INPUT_EXAMPLES", "60"))
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><b>{{7*7}}"
SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[Client]:
    with platform.client() as operator:
        yield operator


@pytest.fixture(scope="module")
def world(client: Client, platform: Platform) -> World:
    with Client(platform.connection_of("orchestrator")) as author:
        return build(client, author, f"t-{uuid4().hex[:12]}")


def site(url: str, token: str) -> httpx2.Client:
    return httpx2.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=20)


@pytest.fixture(scope="module")
def rest(platform: Platform) -> Iterator[httpx2.Client]:
    with site(platform.connection.serving_url, platform.connection.token) as found:
        yield found


@pytest.fixture(scope="module")
def console(platform: Platform) -> Iterator[httpx2.Client]:
    with site(platform.connection.gateway_url, platform.connection.token) as found:
        yield found


def infer_body() -> dict[str, Any]:
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, len(COLUMNS)], "data": [1.0] * len(COLUMNS)}
    return {"id": "one", "parameters": {}, "inputs": [tensor], "outputs": [{"name": "variable"}]}


def refused(response: httpx2.Response) -> dict[str, Any]:
    """The error of an answer that blames the caller, in the protocol's form."""
    assert 400 <= response.status_code < 500, (response.status_code, response.text[:300])
    error: dict[str, Any] = response.json()
    assert isinstance(error["error"], str)
    assert error["error"]
    assert "Traceback" not in response.text
    return error


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.sampled_from(TEXTS)
    | st.text(max_size=10)
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
PLACES: tuple[tuple[str | int, ...], ...] = (
    ("id",),
    ("parameters",),
    ("parameters", "binary_data_output"),
    ("inputs",),
    ("inputs", 0),
    ("inputs", 0, "name"),
    ("inputs", 0, "datatype"),
    ("inputs", 0, "shape"),
    ("inputs", 0, "shape", 0),
    ("inputs", 0, "data"),
    ("inputs", 0, "data", 0),
    ("inputs", 0, "parameters"),
    ("inputs", 0, "parameters", "binary_data_size"),
    ("inputs", 0, "parameters", "segment"),
    ("outputs",),
    ("outputs", 0),
    ("outputs", 0, "name"),
    ("outputs", 0, "parameters"),
    ("outputs", 0, "parameters", "binary_data"),
)


def spoiled(place: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A body with one value that is not as it should be."""
    body = infer_body()
    held: Any = body
    for key in place[:-1]:
        held = held.setdefault(key, {}) if isinstance(held, dict) else held[key]
    held[place[-1]] = value
    return body


def test_any_value_anywhere_in_an_inference_is_answered_or_refused(world: World, rest: httpx2.Client) -> None:
    @SETTINGS
    @given(place=st.sampled_from(PLACES), value=JSON)
    def drive(place: tuple[str | int, ...], value: Any) -> None:
        content = _dumps(spoiled(place, value))
        response = rest.post(f"/v2/models/{world.served}/infer", content=content)
        if response.status_code != 200:
            error = refused(response)
            assert error["field"], error

    drive()


def _dumps(body: Any) -> bytes:
    """JSON that holds NaN, infinities and integers of any size as Python writes them."""
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"NaN",
        b"\xff\xfe",
        b"\x00",
        b'{"inputs": []}',
        b'{"inputs": {}}',
        b'{"inputs": [null]}',
        b'{"id": "\\ud800", "inputs": []}',
        b'{"inputs": ' + b"[" * 100_000,
        b'{"inputs": [' + b"1," * 100_000 + b"1]}",
        b"{" + b'"a":1,' * 100_000 + b'"a":1}',
        b" " * 1_000_000,
    ],
    ids=lambda content: repr(content[:24]),
)
def test_a_body_that_is_no_inference_is_refused(world: World, rest: httpx2.Client, content: bytes) -> None:
    error = refused(rest.post(f"/v2/models/{world.served}/infer", content=content))
    assert error["field"]


@pytest.mark.parametrize("length", ["-1", "0", "x", "1e3", "99999999999999999999", "٣", "9999", ""])
def test_a_length_of_the_header_that_can_not_be_is_refused(world: World, rest: httpx2.Client, length: str) -> None:
    headers = {b"Inference-Header-Content-Length": length.encode()}
    refused(rest.post(f"/v2/models/{world.served}/infer", content=_dumps(infer_body()), headers=headers))


def test_a_body_larger_than_any_may_be_is_refused(world: World, rest: httpx2.Client) -> None:
    error = refused(rest.post(f"/v2/models/{world.served}/infer", content=b" " * ((64 << 20) + 1)))
    assert error["reason"] == "BODY_TOO_LARGE"


def test_any_path_and_method_is_answered_or_refused(world: World, rest: httpx2.Client) -> None:
    parts = st.sampled_from(
        ["v2", "models", "versions", "infer", "ready", "load", "repository", "index", "health", world.served, "1"]
    )
    segment = (
        parts
        | st.sampled_from([quote(text[:300], safe="") for text in TEXTS])
        | st.sampled_from(["%ff", "%2e%2e", "%00"])
    )
    verbs = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])

    @SETTINGS
    @given(verb=verbs, path=st.lists(segment, max_size=6), content=st.binary(max_size=40))
    def drive(verb: str, path: list[str], content: bytes) -> None:
        response = rest.request(verb, "/" + "/".join(["v2", *path]), content=content)
        if response.status_code not in (200, 307, 503) and verb != "HEAD":
            refused(response)
        assert response.status_code not in (500, 501, 502), path

    drive()


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer x", "Basic eDp5", f"Bearer {'x' * 5000}"])
@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/models/x/infer", "/v2/repository/index"])
def test_who_is_not_known_is_refused(platform: Platform, token: str, path: str) -> None:
    headers = {"authorization": token} if token else {}
    method = "POST" if path.endswith(("infer", "index")) else "GET"
    response = httpx2.request(method, platform.connection.serving_url + path, headers=headers)
    assert response.status_code == 401
    refused(response)


PAGES = (
    "/runs/{}",
    "/runs/{}/series?key={}",
    "/runs/{}/artifacts/{}",
    "/runs?filter={}&order={}&page={}",
    "/runs?experiment={}&metric={}",
    "/runs/compare?run={}&run={}",
    "/models/{}",
    "/models/{}/versions/{}",
    "/models?q={}",
    "/endpoints?q={}",
    "/drift/{}",
    "/drift/{}/windows?until={}&from={}",
    "/drift?q={}",
    "/pipelines/runs/{}",
    "/pipelines/runs/{}/steps/{}/logs",
    "/events?q={}",
    "/events/{}",
    "/enter?code={}",
    "/static/{}",
    "/{}",
)
FORMS = (
    "/models/{}/{}",
    "/models/{}/promote",
    "/models/{}/approve",
    "/models/{}/rollback",
    "/models/{}/archive",
    "/pipelines/{}/start",
    "/pipelines/runs/{}/cancel",
    "/pipelines/runs/{}/resume",
    "/drift/alerts/{}/acknowledge",
    "/endpoints/{}/block",
)
WORDS = st.sampled_from([*(text[:2000] for text in TEXTS), MARKUP, "default", "1"]) | st.text(max_size=20)
FIELDS = ("command_id", "version", "alias", "reason", "revision", "parameter.days", "note")


def test_the_console_shows_its_pages_to_this_caller(console: httpx2.Client) -> None:
    for path in ("/runs", "/models", "/endpoints", "/drift", "/pipelines", "/events"):
        assert console.get(path, headers={"accept": "text/html"}).status_code == 200, path


def unharmed(response: httpx2.Response) -> None:
    """No fault of the gateway's, and nothing of the caller's as markup."""
    assert response.status_code < 500, (response.status_code, response.text[-500:])
    kind = response.headers.get("content-type", "")
    if "html" in kind:
        assert "<script>alert" not in response.text
        assert "<img src=x" not in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_any_path_and_query_of_the_console_is_answered(console: httpx2.Client, accept: str) -> None:
    @SETTINGS
    @given(page=st.sampled_from(PAGES), words=st.lists(WORDS, min_size=3, max_size=3), part=st.booleans())
    def drive(page: str, words: list[str], part: bool) -> None:
        headers = {"accept": accept, **({"hx-request": "true"} if part else {})}
        unharmed(console.get(page.format(*(_quoted(each) for each in words)), headers=headers))

    drive()


@pytest.mark.parametrize("page", PAGES)
def test_markup_in_a_path_or_query_comes_back_as_text(console: httpx2.Client, page: str) -> None:
    words = [_quoted(MARKUP)] * 3
    unharmed(console.get(page.format(*words), headers={"accept": "text/html"}))


def test_any_form_is_answered_or_refused(console: httpx2.Client) -> None:
    @SETTINGS
    @given(
        form=st.sampled_from(FORMS),
        words=st.lists(WORDS, min_size=2, max_size=2),
        fields=st.dictionaries(st.sampled_from(FIELDS), WORDS),
    )
    def drive(form: str, words: list[str], fields: dict[str, str]) -> None:
        path = form.format(*(_quoted(each) for each in words))
        unharmed(console.post(path, data=fields, headers={"accept": "text/html"}))

    drive()


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=x", "text/plain", "\x7f", ""])
def test_a_form_that_is_none_is_refused(console: httpx2.Client, kind: str) -> None:
    headers = {"content-type": kind, "accept": "text/html"}
    unharmed(console.post("/models/x/promote", content=b"\xff\x00--x\r\n=&=&%", headers=headers))


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")
