"""The list of attacks on tracking and registry, walked from end to end.

Beside what stands here: generated bad input of every gRPC method (``test_bad_input.py``) and of every endpoint of
MLflow's API (``test_mlflow_http.py``), crafted archives (``tests/unit/sdk/test_bundles.py``), and parts of uploads
(``test_large_artifacts.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from threading import Barrier
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import grpc
import httpx2
import pytest

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.registry.v1 import resources_pb2 as models
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.client import Client
from headrace.transfer import upload_bytes
from tests.support.platform import Platform

pytestmark = pytest.mark.timeout(120)
V2, FILES = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts"
MANIFEST = "application/vnd.headrace.manifest+json"
AT_ONCE = 8


@pytest.fixture
def client(platform: Platform) -> Iterator[Client]:
    with platform.client() as found:
        yield found


@pytest.fixture(scope="module")
def http(platform: Platform) -> Iterator[httpx2.Client]:
    own = platform.connection
    with httpx2.Client(base_url=own.gateway_url, headers={"authorization": f"Bearer {own.token}"}, timeout=30) as found:
        yield found


def start(client: Client, project: str) -> str:
    name = f"projects/{project}/runs/{uuid4()}"
    request = service.StartRunRequest(
        command_id=str(uuid4()), name=name, experiment=f"projects/{project}/experiments/attacked"
    )
    client.tracking.StartRun(request)
    return name


def log(client: Client, run: str, path: str, content: bytes) -> ObjectRef:
    stored = upload_bytes(client.tracking, "/".join(run.split("/")[:2]), content, media_type="text/plain")
    artifact = resources.Artifact(path=path, object=stored)
    client.tracking.LogArtifact(service.LogArtifactRequest(command_id=str(uuid4()), run=run, artifact=artifact))
    return stored


def get(client: Client, run: str) -> resources.Run:
    return client.tracking.GetRun(service.GetRunRequest(name=run)).run


def refusal(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    code: Any = caught.value  # Any: grpc's errors are calls as well
    found: grpc.StatusCode = code.code()
    return found


def root_of(http: httpx2.Client, project: str, run: str) -> str:
    """Where the files of a run are, for MLflow's clients."""
    answer = http.get(f"/projects/{project}{V2}/runs/get", params={"run_id": UUID(run.rpartition("/")[2]).hex})
    uri: str = answer.json()["run"]["info"]["artifact_uri"]
    return uri.removeprefix("mlflow-artifacts:/")


def at_once(calls: list[Callable[[], object]]) -> Counter[str]:
    """What comes of calls that are made in the same moment: ``OK``, or the code of the refusal."""
    together = Barrier(len(calls))

    def one(call: Callable[[], object]) -> str:
        together.wait(timeout=20)
        try:
            answer = call()
        except grpc.RpcError as error:
            found: Any = error  # Any: as above
            return str(found.code().name)
        return str(answer) if isinstance(answer, str) else "OK"

    with ThreadPoolExecutor(len(calls)) as pool:
        return Counter(pool.map(one, calls))


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../x",
        "a/../../x",
        "/etc/passwd",
        "a//b",
        "./a",
        "a/.",
        "a\\..\\b",
        "\\\\host\\x",
        "a\x00b",
        "a\nb",
        "",
        "a/",
    ],
)
def test_a_path_that_leads_out_is_recorded_by_nobody(client: Client, project: str, path: str) -> None:
    run = start(client, project)
    stored = upload_bytes(client.tracking, f"projects/{project}", b"x", media_type="")
    request = service.LogArtifactRequest(
        command_id=str(uuid4()), run=run, artifact=resources.Artifact(path=path, object=stored)
    )
    assert refusal(lambda: client.tracking.LogArtifact(request)) is grpc.StatusCode.INVALID_ARGUMENT
    assert list(get(client, run).artifacts) == []


@pytest.mark.parametrize("name", ["a#b", "a?b=c", "%2e%2e", "a%2fb", "..%2f..%2fx", "a&b;c", "...", "~", "a b+c", "é"])
def test_a_name_that_only_looks_as_if_it_led_out_is_a_name(
    client: Client, http: httpx2.Client, project: str, name: str
) -> None:
    run, content = start(client, project), name.encode()
    root = root_of(http, project, run)
    place = f"/projects/{project}{FILES}/artifacts/{root}/f/{quote(name, safe='')}"
    assert http.put(place, content=content).status_code == 200
    assert [each.path for each in get(client, run).artifacts] == [f"f/{name}"]
    assert http.get(place).content == content
    listed = http.get(f"/projects/{project}{FILES}/artifacts", params={"path": f"{root}/f"}).json()["files"]
    assert [each["path"] for each in listed] == [name]
    signed = http.get(place.replace("/artifacts/", "/presigned/", 1)).json()
    assert httpx2.get(signed["url"]).content == content


@pytest.mark.parametrize("path", ["../f/x", "/etc/passwd", "f//x", "f/../f/x", "f\\x", "file:///etc/passwd", ""])
def test_get_artifact_gives_what_is_there_and_nothing_else(
    client: Client, http: httpx2.Client, project: str, path: str
) -> None:
    run = start(client, project)
    log(client, run, "f/x", b"bytes")
    identity = UUID(run.rpartition("/")[2]).hex
    http.post(f"/projects/{project}{V2}/registered-models/create", json={"name": "m 1"})
    body = {"name": "m 1", "source": f"runs:/{identity}/f"}
    assert http.post(f"/projects/{project}{V2}/model-versions/create", json=body).status_code == 200
    of_run, of_version = f"/projects/{project}/get-artifact", f"/projects/{project}/model-versions/get-artifact"
    for name in ("run_id", "run_uuid"):
        answer = http.get(of_run, params={name: identity, "path": "f/x"})
        assert (answer.content, answer.headers["content-disposition"]) == (b"bytes", "attachment")
    version = {"name": "m 1", "version": "1"}
    assert http.get(of_version, params={**version, "path": "x"}).content == b"bytes"
    for answer in (
        http.get(of_run, params={"run_id": identity, "path": path}),
        http.get(of_version, params={**version, "path": path}),
        http.get(of_version, params={"name": "../m 1", "version": "1", "path": "x"}),
    ):
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer.text
    assert http.get(of_run, params={"run_id": identity, "path": "none"}).status_code == 404
    nobody = httpx2.get(f"{str(http.base_url).rstrip('/')}{of_run}", params={"run_id": identity, "path": "f/x"})
    assert nobody.status_code == 401
    own = http.get("/get-artifact", params={"run_id": identity, "path": "f/x"})
    assert own.status_code == 404, "the gateway's own project has no such run"


@pytest.mark.parametrize("path", ["..", "../..", "%2e%2e/x", "..%2fx", "a//b", "a%5cb", "%2fetc"])
@pytest.mark.parametrize("step", ["create", "complete", "abort"])
def test_uploads_in_parts_lead_nowhere_else(
    client: Client, http: httpx2.Client, project: str, path: str, step: str
) -> None:
    run = start(client, project)
    connection = HTTPConnection(http.base_url.host, http.base_url.port or 80, timeout=20)
    target = f"/projects/{project}{FILES}/mpu/{step}/{root_of(http, project, run)}/{path}"
    body = json.dumps({"path": "/home/me/model.bin", "num_parts": 1, "upload_id": f"{'a' * 32}.x"})
    headers = {"authorization": http.headers["authorization"], "content-type": "application/json"}
    connection.request("POST", target, body=body, headers=headers)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    connection.close()


@pytest.mark.parametrize(
    ("given", "kept"),
    [("/home/me/model.bin", "model.bin"), ("C:\\Users\\me\\model.bin", "model.bin"), ("a/../b.bin", "b.bin")],
)
def test_of_the_clients_own_path_the_name_alone_counts(
    client: Client, http: httpx2.Client, project: str, given: str, kept: str
) -> None:
    run = start(client, project)
    place = f"{FILES}/mpu/{{}}/{root_of(http, project, run)}/models"
    begun = http.post(f"/projects/{project}{place.format('create')}", json={"path": given, "num_parts": 1}).json()
    httpx2.put(begun["credentials"][0]["url"], content=b"bytes").raise_for_status()
    body = {"path": given, "upload_id": begun["upload_id"], "parts": [{"part_number": 1, "etag": "x"}]}
    other = http.post(f"/projects/{project}-b{place.format('complete')}", json=body)
    assert other.status_code in {400, 404}, "another project completes nothing of this one"
    assert http.post(f"/projects/{project}{place.format('complete')}", json=body).status_code == 200
    assert [each.path for each in get(client, run).artifacts] == [f"models/{kept}"]


@pytest.mark.parametrize("number", ["0", "-1", "10001", "1e3", "x", None, [], True])
def test_a_number_of_parts_has_bounds(client: Client, http: httpx2.Client, project: str, number: object) -> None:
    place = f"/projects/{project}{FILES}/mpu/create/{root_of(http, project, start(client, project))}"
    answer = http.post(place, json={"path": "x", "num_parts": number})
    if number is None:
        assert len(answer.json()["credentials"]) == 1
    else:
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


# --- names and sources ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../m", "..", "a/b", "a\\b", "a%2eb", "m#x", "m?x", "m:1", " m", "m\n", "", "x" * 251]
)
def test_a_model_has_no_such_name(client: Client, http: httpx2.Client, project: str, name: str) -> None:
    request = registry.CreateModelRequest(command_id=str(uuid4()), name=f"projects/{project}/models/{name}")
    assert refusal(lambda: client.registry.CreateModel(request)) is grpc.StatusCode.INVALID_ARGUMENT
    answer = http.post(f"/projects/{project}{V2}/registered-models/create", json={"name": name})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    "source",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "file:/etc",
        "s3://bucket/x",
        "http://127.0.0.1:1/x",
        "runs:/../x",
        "mlflow-artifacts:/../../x",
        "mlflow-artifacts:/0/%2e%2e/x",
        "mlflow-artifacts://other-host/0/x",
        "models:/m-1?x#../../etc",
        "dbfs:/x",
        "..",
        "\\\\host\\share",
        "runs:/x#/../../etc/passwd",
    ],
)
def test_a_version_is_made_of_nothing_from_elsewhere(http: httpx2.Client, project: str, source: str) -> None:
    http.post(f"/projects/{project}{V2}/registered-models/create", json={"name": "m"})
    answer = http.post(f"/projects/{project}{V2}/model-versions/create", json={"name": "m", "source": source})
    assert answer.status_code in {400, 404}, answer.text
    assert answer.json()["error_code"] in {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"}
    found = http.get(f"/projects/{project}{V2}/model-versions/search", params={"filter": "name='m'"})
    assert found.json().get("model_versions", []) == []


# --- tenants ----------------------------------------------------------------------------------------------------------


def test_a_manifest_names_no_bytes_of_another_project(client: Client, http: httpx2.Client, project: str) -> None:
    secret = upload_bytes(client.tracking, f"projects/{project}-victim", b"secret of another", media_type="")
    listed = {"path": "MLmodel", "uri": secret.uri, "sha256": secret.sha256, "size_bytes": secret.size_bytes}
    package = upload_bytes(
        client.tracking, f"projects/{project}", json.dumps({"files": [listed]}).encode(), media_type=MANIFEST
    )
    request = registry.CreateVersionRequest(
        command_id=str(uuid4()),
        model=f"projects/{project}/models/m",
        create_model=True,
        artifact=package,
        format=models.MODEL_FORMAT_MLFLOW,
    )
    version = client.registry.CreateVersion(request).version
    asked = registry.PresignArtifactRequest(version=version.name, sha256=secret.sha256)
    assert httpx2.get(client.registry.PresignArtifact(asked).url).status_code == 404, (
        "nothing lies there in this project"
    )
    answer = http.get(f"/projects/{project}{FILES}/artifacts/models/m/versions/1/MLmodel")
    assert (answer.status_code, b"secret" in answer.content) == (404, False)
    other = registry.PresignArtifactRequest(version=version.name, sha256=hashlib.sha256(b"x").hexdigest())
    assert refusal(lambda: client.registry.PresignArtifact(other)) is grpc.StatusCode.NOT_FOUND


def test_an_artifact_is_of_its_own_project(client: Client, project: str) -> None:
    secret = upload_bytes(client.tracking, f"projects/{project}-victim", b"secret", media_type="")
    run = start(client, project)
    artifact = resources.Artifact(path="x", object=secret)
    request = service.LogArtifactRequest(command_id=str(uuid4()), run=run, artifact=artifact)
    assert refusal(lambda: client.tracking.LogArtifact(request)) is grpc.StatusCode.INVALID_ARGUMENT


# --- swapped bytes ----------------------------------------------------------------------------------------------------


def test_bytes_that_were_swapped_afterwards_are_given_to_nobody(
    client: Client, http: httpx2.Client, project: str
) -> None:
    run, content = start(client, project), b"right" * 100
    sha256 = hashlib.sha256(content).hexdigest()
    asked = service.PresignUploadRequest(parent=f"projects/{project}", sha256=sha256, size_bytes=len(content))
    url = client.tracking.PresignUpload(asked).url
    log(client, run, "model/x", content)
    http.post(f"/projects/{project}{V2}/registered-models/create", json={"name": "m"})
    source = f"runs:/{UUID(run.rpartition('/')[2]).hex}/model"
    body = {"name": "m", "source": source}
    assert http.post(f"/projects/{project}{V2}/model-versions/create", json=body).status_code == 200
    httpx2.put(url, content=b"wrong" * 100).raise_for_status()  # it is good for some minutes yet
    root = f"{root_of(http, project, run)}/model/x"
    for place in (f"artifacts/{root}", f"presigned/{root}", "artifacts/models/m/versions/1/x"):
        answer = http.get(f"/projects/{project}{FILES}/{place}")
        assert answer.status_code >= 400, place
        assert b"wrong" not in answer.content
    again = service.LogArtifactRequest(
        command_id=str(uuid4()),
        run=start(client, project),
        artifact=resources.Artifact(path="x", object=get(client, run).artifacts[0].object),
    )
    assert refusal(lambda: client.tracking.LogArtifact(again)) is grpc.StatusCode.INVALID_ARGUMENT
    assert client.tracking.PresignUpload(asked).url, "and the right bytes may mend it"


# --- filters ----------------------------------------------------------------------------------------------------------

SQL = [
    "'; DROP TABLE runs; --",
    "' OR '1'='1",
    "metric.a < 1; DELETE FROM events",
    "metric.a < 1 OR 1=1",
    "metric.a < 1 UNION SELECT * FROM pg_shadow",
    "param.a = 'x' -- ",
    "param.a = $1",
    "param.`a'); DROP TABLE runs; --` = 'x'",
    "tag.\"a' OR ''='\" = 'x'",
    "display_name = 'a\\' OR 1=1 --'",
    "pg_sleep(10) = 0",
    "metric.a < (SELECT 1)",
    "param.a LIKE '%' ESCAPE ''",
]


@pytest.mark.parametrize("text", SQL)
def test_sql_in_a_filter_or_an_order_is_text(client: Client, http: httpx2.Client, project: str, text: str) -> None:
    start(client, project)
    parent = f"projects/{project}"
    for request in (
        service.SearchRunsRequest(parent=parent, filter=text),
        service.SearchRunsRequest(parent=parent, order_by=text),
        service.SearchRunsRequest(parent=parent, filter=f"param.a = '{text.replace(chr(39), chr(39) * 2)}'"),
    ):
        try:
            assert list(client.tracking.SearchRuns(request).runs) == [], "nothing has such a value"
        except grpc.RpcError as error:
            found: Any = error  # Any: as above
            assert found.code() is grpc.StatusCode.INVALID_ARGUMENT
    for endpoint in ("runs", "experiments", "registered-models", "model-versions"):
        body = {"experiment_ids": ["0"], "filter": text, "order_by": [text]}
        url = f"/projects/{project}{V2}/{endpoint}/search"
        answer = http.post(url, json=body) if endpoint in {"runs", "experiments"} else http.get(url, params=body)
        assert answer.status_code in {200, 400}, answer.text
        assert "pg_" not in answer.text or text in answer.text
    assert len(client.tracking.SearchRuns(service.SearchRunsRequest(parent=parent)).runs) == 1, "all is still there"


# --- races ------------------------------------------------------------------------------------------------------------


def test_of_creations_of_one_name_one_wins(client: Client, http: httpx2.Client, project: str) -> None:
    parent = f"projects/{project}"

    def experiment() -> object:
        request = service.CreateExperimentRequest(command_id=str(uuid4()), name=f"{parent}/experiments/{uuid4()}")
        request.display_name = "one"
        return client.tracking.CreateExperiment(request)

    def model() -> object:
        request = registry.CreateModelRequest(command_id=str(uuid4()), name=f"{parent}/models/one")
        return client.registry.CreateModel(request)

    run = f"{parent}/runs/{uuid4()}"

    def begin() -> object:
        request = service.StartRunRequest(command_id=str(uuid4()), name=run, experiment=f"{parent}/experiments/x")
        return client.tracking.StartRun(request)

    lost = AT_ONCE - 1
    for call in (experiment, model, begin):
        assert at_once([call] * AT_ONCE) == {"OK": 1, "ALREADY_EXISTS": lost}, call.__name__
    for endpoint in ("experiments", "registered-models"):

        def create(endpoint: str = endpoint) -> str:
            answer = http.post(f"/projects/{project}{V2}/{endpoint}/create", json={"name": "two"})
            return "OK" if answer.status_code == 200 else str(answer.json()["error_code"])

        assert at_once([create] * AT_ONCE) == {"OK": 1, "RESOURCE_ALREADY_EXISTS": lost}, endpoint


def test_a_storm_of_repeats_does_everything_once(client: Client, project: str) -> None:
    run = start(client, project)
    points = [resources.MetricPoint(key="m", value=0.5 * step, step=step) for step in range(100)]
    requests: list[tuple[Callable[..., object], Any]] = [
        (client.tracking.LogMetrics, service.LogMetricsRequest(command_id=str(uuid4()), run=run, points=points)),
        (client.tracking.LogParams, service.LogParamsRequest(command_id=str(uuid4()), run=run, params={"a": "1"})),
        (client.tracking.ChangeTags, service.ChangeTagsRequest(command_id=str(uuid4()), run=run, set={"a": "1"})),
        (
            client.tracking.StartRun,
            service.StartRunRequest(
                command_id=str(uuid4()),
                name=f"projects/{project}/runs/{uuid4()}",
                experiment=f"projects/{project}/experiments/attacked",
            ),
        ),
    ]
    for method, request in requests:
        assert at_once([partial(method, request)] * AT_ONCE) == {"OK": AT_ONCE}

    def stream() -> object:
        same = [service.StreamMetricsRequest(command_id=requests[0][1].command_id, run=run, points=points)] * 3
        return list(client.tracking.StreamMetrics(iter(same)))

    assert at_once([stream] * AT_ONCE)["OK"] == AT_ONCE
    found = client.tracking.GetMetricHistory(service.GetMetricHistoryRequest(run=run, key="m"))
    assert list(found.steps) == list(range(100))
    changed = service.LogParamsRequest(command_id=requests[1][1].command_id, run=run, params={"b": "2"})
    assert refusal(lambda: client.tracking.LogParams(changed)) is grpc.StatusCode.ALREADY_EXISTS
    runs = client.tracking.SearchRuns(service.SearchRunsRequest(parent=f"projects/{project}")).runs
    assert len(runs) == 2


def test_of_two_writers_of_an_alias_one_wins_and_the_history_is_exact(client: Client, project: str) -> None:
    model = f"projects/{project}/models/m"
    client.registry.CreateModel(registry.CreateModelRequest(command_id=str(uuid4()), name=model, open_aliases=True))
    package = upload_bytes(client.tracking, f"projects/{project}", b'{"files": []}', media_type=MANIFEST)
    for _ in range(AT_ONCE):
        create = registry.CreateVersionRequest(
            command_id=str(uuid4()), model=model, artifact=package, format=models.MODEL_FORMAT_MLFLOW
        )
        client.registry.CreateVersion(create)

    def move(number: int, revision: int) -> Callable[[], object]:
        request = registry.PromoteVersionRequest(
            command_id=str(uuid4()), version=f"{model}/versions/{number}", alias="champion", expected_revision=revision
        )
        return lambda: client.registry.PromoteVersion(request)

    first = at_once([move(number, 0) for number in range(1, AT_ONCE + 1)])
    assert first == {"OK": 1, "ABORTED": AT_ONCE - 1}
    for revision in (1, 2, 3):
        [alias] = client.registry.GetModel(registry.GetModelRequest(name=model)).model.aliases
        others = [number for number in range(1, AT_ONCE + 1) if number != alias.version]
        assert at_once([move(number, revision) for number in others]) == {"OK": 1, "ABORTED": len(others) - 1}
    [alias] = client.registry.GetModel(registry.GetModelRequest(name=model)).model.aliases
    assert [each.revision for each in alias.history] == [1, 2, 3, 4]
    assert [each.previous_version for each in alias.history] == [0, *(each.version for each in alias.history[:-1])]
    assert alias.history[-1].version == alias.version


# --- bodies -----------------------------------------------------------------------------------------------------------


def test_a_body_that_is_shorter_than_it_says_records_nothing(client: Client, http: httpx2.Client, project: str) -> None:
    run = start(client, project)
    target = f"/projects/{project}{FILES}/artifacts/{root_of(http, project, run)}/x"
    connection = HTTPConnection(http.base_url.host, http.base_url.port or 80, timeout=20)
    connection.putrequest("PUT", target)
    connection.putheader("authorization", http.headers["authorization"])
    connection.putheader("content-length", "1000000000000")
    connection.endheaders()
    connection.send(b"x" * 100_000)
    connection.close()
    assert http.put(target.replace("/x", "/y"), content=b"y").status_code == 200
    assert [each.path for each in get(client, run).artifacts] == ["y"]


@pytest.mark.parametrize("size", [(16 << 20) + 1, 40 << 20])
def test_a_body_larger_than_any_may_be_is_refused(http: httpx2.Client, project: str, size: int) -> None:
    body = b'{"name": "' + b"x" * size + b'"}'
    answer = http.post(f"/projects/{project}{V2}/registered-models/create", content=body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
