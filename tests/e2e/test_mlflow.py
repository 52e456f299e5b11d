"""Scripts written for MLflow run as they are: its real client, unmodified, against the real platform.

What the client does stands in ``mlflow_scenarios.py``; what comes of it is checked there, and here by headrace's API.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from headrace.api.audit.v1 import service_pb2 as audit
from headrace.api.registry.v1 import resources_pb2 as models
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace.api.tracking.v1.events_pb2 import TracesDeleted
from headrace.api.tracking.v1.resources_pb2 import Run
from headrace.client import Client
from headrace.packages import remote
from tests.support import mlflow
from tests.support.eventually import eventually
from tests.support.platform import Platform
from tests.support.signing import KeyPair

pytestmark = [pytest.mark.mlflow, pytest.mark.timeout(180)]
INVALID, MISSING, EXISTS = "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"


class Script(mlflow.Script):
    """MLflow's client, in a project."""

    def __init__(self, process: subprocess.Popen[str], url: str, project: str) -> None:
        super().__init__(process, f"{url}/projects/{project}")
        self.project = project


@pytest.fixture(scope="module")
def client_process(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    with mlflow.client_process(tmp_path_factory.mktemp("mlflow"), platform.connection.token) as process:
        yield process


@pytest.fixture
def script(client_process: subprocess.Popen[str], platform: Platform, project: str) -> Script:
    return Script(client_process, platform.connection.gateway_url, project)


def stored(platform: Platform, script: Script, run_id: str) -> Run:
    with platform.client() as client:
        request = tracking.GetRunRequest(name=f"projects/{script.project}/runs/{UUID(run_id)}")
        return client.tracking.GetRun(request).run


def test_a_run_is_headraces_run(script: Script, platform: Platform) -> None:
    found = script("tracks_a_run")
    run, child = stored(platform, script, found["run"]), stored(platform, script, found["child"])
    assert run.actor == "persons/operator"
    assert run.params["layers"] == "[1, 2]"
    assert run.metrics["loss"].count == 5
    assert child.parent_run == run.name


def test_batches_are_logged_once_and_in_order(script: Script, platform: Platform) -> None:
    found = script("logs_in_batches")
    assert stored(platform, script, found["run"]).metrics["m"].count == 1000


def test_artifacts_come_back_as_they_were(script: Script, platform: Platform) -> None:
    found = script("keeps_artifacts")
    run = stored(platform, script, found["run"])
    assert len({each.object.sha256 for each in run.artifacts if each.path.endswith("f.bin")}) == 1


def test_large_files_go_past_the_gateway_in_parts(script: Script, platform: Platform) -> None:
    found = script("moves_large_files")
    run = stored(platform, script, found["run"])
    assert [(each.path, each.object.size_bytes) for each in run.artifacts] == [
        ("deep/er/large.bin", found["size"]),
        ("large.bin", found["size"]),
    ]
    assert len({each.object.sha256 for each in run.artifacts}) == 1


def test_mlflows_filters_find_what_they_would(script: Script) -> None:
    codes = script("searches_runs")["codes"]
    assert set(codes.values()) == {INVALID}, codes


def test_runs_are_put_away_and_restored(script: Script) -> None:
    assert set(script("deletes_and_restores_runs")["codes"].values()) == {INVALID}


def test_experiments(script: Script) -> None:
    codes = script("keeps_experiments")["codes"]
    assert codes == {
        "same name": EXISTS,
        "name of a deleted one": EXISTS,
        "run in a deleted one": INVALID,
        "missing": MISSING,
        "no number": MISSING,
        "rename to a taken one": EXISTS,
        "location": INVALID,
    }


def test_traces_of_an_application(script: Script, platform: Platform) -> None:
    found = script("traces_an_application")
    assert set(found["codes"].values()) == {MISSING}, found["codes"]
    name = f"projects/{script.project}/traces/{found['trace'].removeprefix('tr-')}"
    with platform.client() as client:
        trace = client.tracking.GetTrace(tracking.GetTraceRequest(name=name)).trace
    assert (trace.display_name, trace.span_count) == ("answer", 3)
    assert trace.run == f"projects/{script.project}/runs/{UUID(found['run'])}"


def test_traces_are_found(script: Script) -> None:
    codes = script("searches_traces")["codes"]
    assert codes == {
        "filter": INVALID,
        "no number": INVALID,
        "by feedback": INVALID,
        "order": INVALID,
        "experiment": MISSING,
    }


def test_traces_are_deleted_and_the_log_tells_which(script: Script, platform: Platform) -> None:
    found = script("deletes_traces")
    parent = f"projects/{script.project}"
    with platform.client() as client:
        left = client.tracking.SearchTraces(tracking.SearchTracesRequest(parent=parent, filter='name = "answer"'))
        stream = audit.ReadStreamRequest(stream_id=f"{parent}/experiments/deleted")
        told = eventually(
            lambda: [each for each in client.log("tracking").ReadStream(stream).entries if "Traces" in each.type],
            lambda entries: len(entries) == 3,
        )
    assert [each.span_count for each in left.traces if each.experiment.endswith("/deleted")] == [3, 3]
    events = [TracesDeleted.FromString(each.data) for each in told]
    assert [f"tr-{each.traces[0]}" for each in events[:2]] == found["deleted"]
    assert events[0].filter == ""
    assert events[1].filter.startswith("start_time < ")


def test_a_model_is_logged_registered_and_loaded_by_its_alias(script: Script, platform: Platform) -> None:
    found = script("logs_registers_and_loads_a_model")
    with platform.client() as client:
        name = f"projects/{script.project}/models/Iris Classifier"
        model = client.registry.GetModel(registry.GetModelRequest(name=name)).model
        assert [each.format for each in model.versions] == [models.MODEL_FORMAT_MLFLOW] * 2
        assert model.versions[0].run == f"projects/{script.project}/runs/{UUID(found['run'])}"
        [alias] = model.aliases
        assert (alias.alias, alias.version, alias.history[0].actor) == ("champion", 1, "persons/operator")
        assert alias.history[0].opened_by == "persons/operator"


def test_autolog_tells_the_whole_of_a_grid_search(script: Script, platform: Platform) -> None:
    found = script("autologs_a_grid_search")
    assert stored(platform, script, found["single"]).model_outputs
    assert [each.context for each in stored(platform, script, found["run"]).datasets] == ["train"]


def test_the_registry(script: Script) -> None:
    codes = script("keeps_a_registry")["codes"]
    assert codes == {
        "twice": EXISTS,
        "no model": MISSING,
        "no version": MISSING,
        "no number": INVALID,
        "version of no model": MISSING,
        "no alias": INVALID,
        "alias to nothing": MISSING,
        "version under an alias": "INVALID_STATE",
        "model under an alias": "INVALID_STATE",
        "foreign source": INVALID,
        "local source": INVALID,
        "source out of it": INVALID,
        "stage": INVALID,
        "name": INVALID,
        "rename of none": MISSING,
        "rename to a taken one": EXISTS,
        "rename to no name": INVALID,
        "rename into a path": INVALID,
    }


def test_a_model_is_renamed_and_its_name_is_free(script: Script, platform: Platform) -> None:
    found = script("renames_a_model")
    assert found["gone"] == dict.fromkeys(found["gone"], MISSING)
    assert found["taken"] == [EXISTS, EXISTS]
    parent = f"projects/{script.project}"
    with platform.client() as client:
        by_id = client.registry.GetModel(registry.GetModelRequest(name=f"{parent}/models/a")).model
        assert (by_id.display_name, list(by_id.former_names)) == ("b", ["a"])
        assert by_id.versions[0].run == f"{parent}/runs/{UUID(found['run'])}"
        listed = client.registry.ListModels(registry.ListModelsRequest(parent=parent)).models
        [other] = [each for each in listed if each.name != by_id.name]
        assert other.display_name == "z"
        assert other.name.startswith(f"{parent}/models/a-")


def test_gates_hold_for_mlflows_clients(script: Script, platform: Platform) -> None:
    script("registers_for_guarding")
    with platform.client() as client:
        gates = models.Gates(alias="production", required_checks=["quality"])
        name = f"projects/{script.project}/models/guarded"
        client.registry.SetGates(registry.SetGatesRequest(command_id=str(uuid4()), model=name, gates=gates))
        assert script("sets_a_guarded_alias")["code"] == "INVALID_STATE"
        check = registry.RecordValidationRequest(
            command_id=str(uuid4()), version=f"{name}/versions/1", check="quality", passed=True
        )
        client.registry.RecordValidation(check)
        assert script("sets_a_guarded_alias")["code"] == "INVALID_STATE"  # who set the gates registered it, too
        before = client.registry.GetModel(registry.GetModelRequest(name=name)).model
        assert not before.aliases
    with Client(platform.connection_of_person("grace")) as other:
        word = registry.ReviewVersionRequest(
            command_id=str(uuid4()), version=f"{name}/versions/1", approve=True, reason="looked at it"
        )
        other.registry.ReviewVersion(word)
    assert script("sets_a_guarded_alias")["code"] == "nothing was refused"
    with platform.client() as client:
        [alias] = client.registry.GetModel(registry.GetModelRequest(name=name)).model.aliases
        assert [each.actor for each in alias.history[0].approvals] == ["persons/grace"]
        assert alias.history[0].opened_by == ""


def test_versions_that_must_be_signed_are_fetched_once_they_are(script: Script, platform: Platform) -> None:
    script("registers_for_signing")
    files, key = ["MLmodel", "data/w.txt", "registered_model_meta"], KeyPair.make()
    with platform.client() as client:
        name = f"projects/{script.project}/models/signed"
        assert script("downloads_what_is_signed") == [["nothing was refused", files]] * 2
        gates = models.Gates(alias="production", signed_package_required=True)
        client.registry.SetGates(registry.SetGatesRequest(command_id=str(uuid4()), model=name, gates=gates))
        trust = registry.TrustKeyRequest(
            command_id=str(uuid4()), model=name, public_key=key.public.decode(), reason="ours"
        )
        client.signing.TrustKey(trust)
        remote.sign(client, f"{name}/versions/2", key.signer)
        assert script("downloads_what_is_signed") == [["INVALID_STATE", []], ["nothing was refused", files]]
        withdraw = registry.WithdrawKeyRequest(
            command_id=str(uuid4()), model=name, key_id=key.verifier.id, reason="it leaked"
        )
        client.signing.WithdrawKey(withdraw)
        assert script("downloads_what_is_signed") == [["INVALID_STATE", []]] * 2


def test_a_stage_that_is_refused_leaves_the_one_before(script: Script, platform: Platform) -> None:
    script("stages_what_is_guarded")
    with platform.client() as client:
        name = f"projects/{script.project}/models/staged"
        gates = models.Gates(alias="production", required_checks=["quality"])
        client.registry.SetGates(registry.SetGatesRequest(command_id=str(uuid4()), model=name, gates=gates))
        assert script("moves_a_guarded_stage") == {"code": "INVALID_STATE", "stage": "Staging"}


def test_a_pipelines_model_is_not_opened_by_an_mlflow_client(script: Script, platform: Platform) -> None:
    with Client(platform.connection_of("orchestrator")) as pipeline:
        name = f"projects/{script.project}/models/governed"
        pipeline.registry.CreateModel(registry.CreateModelRequest(command_id=str(uuid4()), name=name))
    assert script("takes_over_a_model") == {
        "alias": "INVALID_STATE",
        "production": "INVALID_STATE",
        "alias of it anew": "INVALID_STATE",
    }
    with platform.client() as client:
        assert not client.registry.GetModel(registry.GetModelRequest(name=name)).model.aliases


def test_webhooks_tell_what_mlflows_would(script: Script) -> None:
    assert script("tells_a_webhook")["codes"] == {
        "gone": MISSING,
        "no id": MISSING,
        "near": INVALID,
        "prompt": INVALID,
        "url": INVALID,
    }


def test_errors_have_the_codes_that_clients_match(script: Script) -> None:
    assert script("errs") == {
        "run": MISSING,
        "run id": MISSING,
        "metric of no run": MISSING,
        "param": INVALID,
        "tag": MISSING,
        "status": INVALID,
        "long tag": INVALID,
        "experiment": MISSING,
        "model": MISSING,
        "model id": MISSING,
    }
