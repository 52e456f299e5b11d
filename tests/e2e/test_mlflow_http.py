"""What MLflow's client would never send: the API of MLflow's clients under bad input and attack."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headrace_gateway.mlflow_api import endpoints
from tests.support.hostile import TEXTS
from tests.support.platform import Platform

pytestmark = pytest.mark.timeout(300)
EXAMPLES = int(os.environ.get("HEADRACE_BAD_INPUT_EXAMPLES", "60"))
V2 = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture(scope="module")
def http(platform: Platform) -> Iterator[httpx2.Client]:
    own = platform.connection
    with httpx2.Client(base_url=own.gateway_url, headers={"authorization": f"Bearer {own.token}"}, timeout=30) as found:
        yield found


def call(http: httpx2.Client, project: str, endpoint: str, body: object = None, /, **given: Any) -> httpx2.Response:
    url = f"/projects/{project}{V2}/{endpoint}"
    return http.get(url, params=given) if body is None else http.post(url, json=body)


def start(http: httpx2.Client, project: str) -> dict[str, Any]:
    answer = call(http, project, "runs/create", {"experiment_id": "0", "start_time": 1})
    assert answer.status_code == 200, answer.text
    run: dict[str, Any] = answer.json()["run"]
    return run


def raw(http: httpx2.Client, method: str, target: str) -> tuple[int, bytes]:
    """Sends the target as it stands: clients put dots in order first."""
    connection = HTTPConnection(http.base_url.host, http.base_url.port, timeout=20)
    try:
        connection.request(method, target, body=b"x", headers={"authorization": http.headers["authorization"]})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def refused(answer: httpx2.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text[:300]


def test_nobody_enters_without_a_token(platform: Platform) -> None:
    url = platform.connection.gateway_url
    with httpx2.Client(base_url=url) as stranger:
        assert stranger.get("/health").text == "OK"
        assert stranger.get("/version").text == "3.17.2"
        refused(stranger.get(f"{V2}/experiments/get", params={"experiment_id": "0"}), 401, "UNAUTHENTICATED")
        wrong = {"authorization": "Bearer nonsense"}
        refused(stranger.post(f"{V2}/runs/create", json={}, headers=wrong), 401, "UNAUTHENTICATED")
        refused(stranger.put(f"{FILES}/0/x/artifacts/f", content=b"x", headers=wrong), 401, "UNAUTHENTICATED")


def test_a_service_acts_in_its_own_name(platform: Platform, project: str) -> None:
    own = platform.connection_of("orchestrator")
    with httpx2.Client(base_url=own.gateway_url, headers={"authorization": f"Bearer {own.token}"}) as service:
        assert start(service, project)["info"]["user_id"] == "orchestrator"
        assert service.get("/runs").status_code == 403, "the console stays shut"


def test_wire_forms(http: httpx2.Client, project: str) -> None:
    identity = start(http, project)["info"]["run_id"]
    assert start(http, project)["info"]["run_uuid"] != identity
    for value, step in (("NaN", 1), ("Infinity", "2"), (1.5, 9_007_199_254_740_993), ("-1e300", -4)):
        body = {"run_uuid": identity, "key": "m", "value": value, "timestamp": 1_700_000_000_000, "step": step}
        assert call(http, project, "runs/log-metric", body).json() == {}
    found = call(http, project, "metrics/get-history", run_uuid=identity, metric_key="m").json()["metrics"]
    assert [(each["step"], each["value"]) for each in found] == [
        (-4, -1e300),
        (1, "NaN"),
        (2, "Infinity"),
        (9_007_199_254_740_993, 1.5),
    ]
    first = call(http, project, "metrics/get-history", run_id=identity, metric_key="m", max_results=3).json()
    rest = call(
        http, project, "metrics/get-history", run_id=identity, metric_key="m", page_token=first["next_page_token"]
    ).json()
    assert first["metrics"] + rest["metrics"] == found
    bulk = call(http, project, "metrics/get-history-bulk-interval", run_ids=[identity], metric_key="m").json()
    assert {each["run_id"] for each in bulk["metrics"]} == {identity}
    run = call(http, project, "runs/get", run_uuid=identity).json()["run"]
    assert run["data"]["metrics"] == [
        {"key": "m", "value": 1.5, "timestamp": 1_700_000_000_000, "step": 9_007_199_254_740_993}
    ]


def test_a_storm_of_repeats_adds_nothing(http: httpx2.Client, project: str) -> None:
    identity = start(http, project)["info"]["run_id"]
    point = {"key": "m", "value": 1.0, "timestamp": 5, "step": 1}
    with ThreadPoolExecutor(8) as threads:
        calls = [
            threads.submit(call, http, project, "runs/log-batch", {"run_id": identity, "metrics": [point] * 3})
            for _ in range(24)
        ]
        assert {each.result().status_code for each in calls} == {200}
    found = call(http, project, "metrics/get-history", run_id=identity, metric_key="m").json()["metrics"]
    assert len(found) == 3


@pytest.mark.parametrize(
    "path",
    [
        "../../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "..%5c..%5cwindows",
        "a/../../b",
        "a//b",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "a%00b",
        "a%0ab",
        "./a",
        "a/.",
        "C:%5cx",
        "file:%2f%2f%2fetc/passwd",
        "http:%2f%2fhost/x",
        "%e2%80%aea",
        "",
    ],
)
def test_paths_that_lead_out_are_refused(http: httpx2.Client, project: str, path: str) -> None:
    info = start(http, project)["info"]
    place = f"/projects/{project}{FILES}/{info['experiment_id']}/{info['run_id']}/artifacts/{path}"
    for method in ("PUT", "GET"):
        status, content = raw(http, method, place)
        assert status in {400, 404}, (method, status, content[:200])
        assert b"root:" not in content
    listed = call(http, project, "artifacts/list", run_id=info["run_id"]).json()["files"]
    assert listed == []


@pytest.mark.parametrize("path", ["..", "../x", "/etc", "a/../..", "a\\b", "a//b", "file:///etc", "x\x00"])
def test_lists_and_sources_lead_nowhere_else(http: httpx2.Client, project: str, path: str) -> None:
    info = start(http, project)["info"]
    refused(call(http, project, "artifacts/list", run_id=info["run_id"], path=path), 400, "INVALID_PARAMETER_VALUE")
    root = f"{info['experiment_id']}/{info['run_id']}/artifacts/{path}"
    answer = http.get(f"/projects/{project}{FILES}", params={"path": root})
    refused(answer, 400, "INVALID_PARAMETER_VALUE")
    call(http, project, "registered-models/create", {"name": "m"})
    for source in (path, f"runs:/{info['run_id']}/{path}", f"mlflow-artifacts:/{root}", f"file://{path}"):
        body = {"name": "m", "source": source, "run_id": info["run_id"]}
        refused(call(http, project, "model-versions/create", body), 400, "INVALID_PARAMETER_VALUE")


def test_a_project_sees_nothing_of_another(http: httpx2.Client, project: str) -> None:
    info = start(http, project)["info"]
    place = f"{FILES}/{info['experiment_id']}/{info['run_id']}/artifacts/f.txt"
    assert http.put(f"/projects/{project}{place}", content=b"secret").status_code == 200
    other = f"{project}-b"
    refused(call(http, other, "runs/get", run_id=info["run_id"]), 404, "RESOURCE_DOES_NOT_EXIST")
    refused(http.get(f"/projects/{other}{place}"), 404, "RESOURCE_DOES_NOT_EXIST")
    assert call(http, other, "runs/search", {"experiment_ids": ["0"]}).json()["runs"] == []
    answer = http.get(f"/projects/{project}{place}")
    assert answer.content == b"secret"
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_bodies_that_are_no_arguments(http: httpx2.Client, project: str) -> None:
    url = f"/projects/{project}{V2}/runs/create"
    for content in (b"{", b"[]", b'"x"', b"\xff", b"null"):
        refused(http.post(url, content=content), 400, "MALFORMED_REQUEST")
    refused(http.post(url, content=b" " * (17 << 20)), 400, "INVALID_PARAMETER_VALUE")
    identity = start(http, project)["info"]["run_id"]
    many = [{"key": "m", "value": 1, "timestamp": 1, "step": step} for step in range(1001)]
    body = {"run_id": identity, "metrics": many}
    refused(call(http, project, "runs/log-batch", body), 400, "INVALID_PARAMETER_VALUE")
    for metric in (
        {"key": "m", "value": "x", "timestamp": 1},
        {"key": "m", "value": None, "timestamp": 1},
        {"key": "m", "value": 1},
        {"key": "m", "value": 1, "timestamp": 1 << 62},
        {"key": "m", "value": 1, "timestamp": 1, "step": 1 << 63},
        {"key": "m", "value": 1, "timestamp": 1, "step": 0.5},
        {"key": "", "value": 1, "timestamp": 1},
        {"key": "k" * 251, "value": 1, "timestamp": 1},
        {"key": ["m"], "value": 1, "timestamp": 1},
    ):
        answer = call(http, project, "runs/log-metric", {"run_id": identity, **metric})
        refused(answer, 400, "INVALID_PARAMETER_VALUE")


HOSTILE = st.sampled_from([each for each in TEXTS if len(each) < 20_000])
PARTS = st.sampled_from([each for each in TEXTS if len(each) < 1000])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | HOSTILE
)
OBJECTS = st.lists(st.dictionaries(st.sampled_from(["key", "value", "dataset"]), SCALARS), max_size=2)
BODIES = st.dictionaries(
    st.sampled_from(
        [
            "run_id", "run_uuid", "experiment_id", "experiment_ids", "name", "key", "value", "timestamp", "step",
            "filter", "order_by", "max_results", "page_token", "metrics", "params", "tags", "datasets", "models",
            "source", "version", "alias", "stage", "stages", "status", "path", "model_json", "view_type",
            "url", "events", "secret", "description", "event",
            "run_view_type", "metric_key", "run_ids", "end_time", "start_time", "new_name", "artifact_location",
        ]
    ),
    SCALARS | st.lists(SCALARS, max_size=3) | OBJECTS,
    max_size=6,
)  # fmt: skip


@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(endpoint=st.sampled_from(endpoints()), body=BODIES, part=PARTS)
def test_whatever_comes_is_never_a_fault_of_the_server(
    http: httpx2.Client, endpoint: Any, body: dict[str, Any], part: str
) -> None:
    path = endpoint.path
    for name in ("{path:path}", "{model_id}", "{key:path}", "{step}", "{webhook_id}"):
        path = path.replace(name, quote(part.encode("utf-8", "replace"), safe="") or "x")
    if endpoint.method in ("GET", "PUT"):
        texts = {name: str(value).encode("utf-8", "replace").decode() for name, value in body.items()}
        answer = http.request(endpoint.method, f"/projects/t-hostile{path}", params=texts)
    else:
        try:
            answer = http.request(endpoint.method, f"/projects/t-hostile{path}", json=body)
        except UnicodeEncodeError:
            return
    assert answer.status_code < 500 or answer.status_code == 501, (endpoint, answer.status_code, answer.text[:300])
    if answer.status_code >= 400 and answer.status_code != 404:
        assert answer.json()["error_code"]
