"""What training code hands over, as it is recorded."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import MetricPoint
from headrace.tracking.run import flattened
from headrace.tracking.sender import Kind
from headrace.tracking.spool import Record, Spool, blob_path

names = st.text(alphabet="abc_", min_size=1, max_size=4)
leaves = st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.none(), st.lists(st.integers(), max_size=2))
configurations = st.recursive(
    st.dictionaries(names, leaves, max_size=4),
    lambda inner: st.dictionaries(names, st.one_of(leaves, inner), max_size=4),
)


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_SPOOL", str(tmp_path))
    return tmp_path


def recorded(folder: Path, run: headrace.Run, kind: Kind) -> list[Record]:
    spool = Spool(folder, run.id)
    found = [each for each in spool.records(0) if each.kind == kind]
    spool.close()
    return found


def recorded_points(folder: Path, run: headrace.Run) -> list[MetricPoint]:
    payloads = [each.payload for each in recorded(folder, run, Kind.METRIC_POINTS)]
    return list(service.LogMetricsRequest.FromString(b"".join(payloads)).points)


def test_a_nested_configuration_is_taken_apart(spool: Path) -> None:
    with headrace.start_run("x", offline=True) as run:
        run.log_params({"optimizer": {"name": "adam", "lr": 1, "betas": [0.9, 0.99]}, "seed": 3, "none": {}})
        run.log_params({})
    [record] = recorded(spool, run, Kind.LOG_PARAMS)
    assert dict(service.LogParamsRequest.FromString(record.payload).params) == {
        "optimizer.name": "adam",
        "optimizer.lr": "1",
        "optimizer.betas": "[0.9,0.99]",
        "seed": "3",
        "none": "{}",
    }


@pytest.mark.parametrize("length", [8000, 8001, 100_000])
def test_a_long_value_is_kept_whole(spool: Path, length: int) -> None:
    with headrace.start_run("x", offline=True) as run:
        run.log_param("prompt", "p" * length)
    [record] = recorded(spool, run, Kind.LOG_PARAMS)
    value = service.LogParamsRequest.FromString(record.payload).params["prompt"]
    artifacts = [
        service.LogArtifactRequest.FromString(each.payload).artifact for each in recorded(spool, run, Kind.LOG_ARTIFACT)
    ]
    stored = [each for each in artifacts if each.path.startswith("params/")]
    if length <= 8000:
        assert (value, stored) == ("p" * length, [])
    else:
        [artifact] = stored
        assert value == f"{'p' * 500}\u2026 ({length} characters, whole in {artifact.path})"
        assert blob_path(spool, run.id, artifact.object.sha256).read_text() == "p" * length


def test_two_values_of_one_key_are_refused(spool: Path) -> None:
    with headrace.start_run("x", offline=True) as run, pytest.raises(ValueError, match=r"have the key 'a\.b'"):
        run.log_params({"a": {"b": 1}, "a.b": 2})


@given(configurations)
def test_every_leaf_of_a_configuration_has_its_path(configuration: dict[str, object]) -> None:
    for path, value in flattened(configuration):
        found: object = configuration
        for part in path.split("."):
            assert isinstance(found, dict)
            found = found[part]
        assert found == value


def test_a_context_is_a_metric_of_its_own(spool: Path) -> None:
    with headrace.start_run("x", offline=True) as run:
        run.log_metric("loss", 1.0)
        run.log_metric("loss", 2.0, context={"subset": "val", "fold": 1})
        run.log_metrics({"loss": 3.0}, context={"fold": 1, "subset": "val"})
    points = recorded_points(spool, run)
    assert [(each.key, each.step, each.value) for each in points] == [
        ("loss", 0, 1.0),
        ("loss@fold=1@subset=val", 0, 2.0),
        ("loss@fold=1@subset=val", 1, 3.0),
    ]


@pytest.mark.parametrize("context", [{"a": "b=c"}, {"a@b": 1}, {"": 1}, {"a": ""}])
def test_a_context_that_would_be_read_as_another_is_refused(spool: Path, context: dict[str, object]) -> None:
    with headrace.start_run("x", offline=True) as run, pytest.raises(ValueError, match="without @ and ="):
        run.log_metric("loss", 1.0, context=context)


def test_a_fork_names_the_run_and_goes_on_behind_the_step(spool: Path) -> None:
    first = "0198f2c1-7c1e-7d52-9a55-0c4d1f6e2b11"
    with headrace.start_run("x", offline=True, fork_from=first, at_step=7, group="g") as run:
        run.log_metric("loss", 1.0)
        run.log_metric("loss", 2.0)
    [start] = recorded(spool, run, Kind.START_RUN)
    request = service.StartRunRequest.FromString(start.payload)
    assert (request.forked_from, request.fork_step) == (f"projects/default/runs/{first}", 7)
    assert request.group == "g"
    points = [each.step for each in recorded_points(spool, run)]
    assert points == [8, 9]


@pytest.mark.parametrize(("fork_from", "at_step"), [("x", None), ("", 3), ("x", -1)])
def test_a_fork_without_its_step_is_refused(spool: Path, fork_from: str, at_step: int | None) -> None:
    with pytest.raises(ValueError, match="both the run"):
        headrace.start_run("x", offline=True, fork_from=fork_from, at_step=at_step)


def test_where_a_step_is_on_other_axes_is_told_once(spool: Path) -> None:
    with headrace.start_run("x", offline=True) as run:
        run.log_metric("loss", 1.0, step=10, x={"epoch": 0.5, "tokens": 3e6})
        run.log_metrics({"acc": 0.1, "f1": 0.2}, step=10, x={"epoch": 0.5})
        run.log_metric("loss", 0.9, step=20, x={"epoch": 0.5})
        run.log_metric("other", 1.0, x={"epoch": 1})
    points = recorded_points(spool, run)
    assert [(each.key, each.step, each.value) for each in points] == [
        ("epoch", 10, 0.5),
        ("tokens", 10, 3e6),
        ("loss", 10, 1.0),
        ("acc", 10, 0.1),
        ("f1", 10, 0.2),
        ("epoch", 20, 0.5),
        ("loss", 20, 0.9),
        ("epoch", 0, 1.0),
        ("other", 0, 1.0),
    ]
