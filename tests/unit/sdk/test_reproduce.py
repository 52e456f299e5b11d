"""What is planned to do a run again, from what it captured."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.api.common.v1.resources_pb2 import DatasetVersion, ObjectRef
from headrace.api.tracking.v1.resources_pb2 import Artifact, CodeVersion, Environment, Package, Run
from headrace.reproduce import Command, Fetch, Plan, Tools, Write, plan

NAME = "projects/p/runs/0198f2c1-7c1e-7d52-9a55-0c4d1f6e2b11"
DIFF = b"diff --git a/x b/x\n--- a/x\n+++ b/x\n"
TOOLS = Tools("/usr/bin/python3.11", "/usr/bin/uv")
DATA = ObjectRef(sha256="ab" * 32, size_bytes=4)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for command in (
        ["init", "-q", str(folder)],
        ["-C", str(folder), "-c", "user.name=n", "-c", "user.email=n@x", "commit", "-q", "--allow-empty", "-m", "a"],
    ):
        subprocess.run(["git", *command], check=True)
    return folder


def run_of(repository: Path, *, commit: str = "", command: str = "", **code: str | bool) -> Run:
    head = subprocess.run(
        ["git", "-C", str(repository), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    return Run(
        name=NAME,
        code=CodeVersion(
            commit=commit or head.stdout.strip(),
            root=str(repository),
            command_line=command or f"{repository}/.venv/bin/python {repository}/train.py --out={repository}/out 3",
            **code,  # type: ignore[arg-type] # texts, and dirty
        ),
        environment=Environment(
            python="3.11.2", packages=[Package(name="numpy", version="2.1.0"), Package(name="orjson", version="3.10.1")]
        ),
    )


def planned(run: Run, repository: Path, *, diff: bytes = b"", tools: Tools = TOOLS) -> Plan:
    return plan(run, diff, folder=repository.parent / "again", repository=repository, tools=tools)


def commands(made: Plan) -> list[str]:
    return [shlex.join(each.arguments) for each in made.steps if isinstance(each, Command)]


def test_everything_captured_is_done_again_in_order(repository: Path) -> None:
    run = run_of(repository, dirty=True, working_folder="sub")
    again = repository.parent / "again"
    made = planned(run, repository, diff=DIFF)
    assert (made.missing, made.notes) == ([], [])
    assert commands(made) == [
        f"git -C {repository} worktree add --detach {again}/code {run.code.commit}",
        f"git -C {again}/code apply --binary --whitespace=nowarn {again}/uncommitted.diff",
        f"/usr/bin/uv venv --quiet --python /usr/bin/python3.11 {again}/venv",
        f"/usr/bin/uv pip install --quiet --python {again}/venv/bin/python --no-deps -r {again}/requirements.txt",
        f"{again}/venv/bin/python {again}/code/train.py --out={again}/code/out 3",
    ]
    last = made.steps[-1]
    assert isinstance(last, Command)
    assert last.folder == again / "code" / "sub"
    assert last.environment["HEADRACE_REPRODUCES"] == NAME
    written = [each.content for each in made.steps if isinstance(each, Write)]
    assert written == [DIFF, b"numpy==2.1.0\norjson==3.10.1\n"]


def test_without_uv_pip_does_it(repository: Path) -> None:
    made = planned(run_of(repository), repository, tools=Tools(sys.executable, None))
    again = repository.parent / "again"
    assert f"{sys.executable} -m venv {again}/venv" in commands(made)
    pip = f"{again}/venv/bin/python -m pip install --quiet --no-deps -r {again}/requirements.txt"
    assert pip in commands(made)


def test_a_commit_that_is_not_here_is_cloned_from_the_remote(repository: Path) -> None:
    run = run_of(repository, commit="c" * 40, remote="https://example.org/r.git")
    made = planned(run, repository)
    code = repository.parent / "again" / "code"
    assert commands(made)[:2] == [
        f"git clone --no-checkout -- https://example.org/r.git {code}",
        f"git -C {code} checkout --detach {'c' * 40}",
    ]


def test_packages_come_from_where_they_came(repository: Path) -> None:
    run = run_of(repository)
    (repository.parent / "library").mkdir()
    for name, source in {
        "ours": f"editable:{repository}/libs/ours",
        "beside": f"folder:{repository.parent}/library",
        "fixed": "git+https://example.org/f.git@abc",
    }.items():
        run.environment.packages.add(name=name, version="1", source=source)
    made = planned(run, repository)
    [requirements] = [each.content.decode().splitlines() for each in made.steps if isinstance(each, Write)]
    assert requirements[2:] == [
        f"-e {repository.parent}/again/code/libs/ours",
        f"{repository.parent}/library",
        "fixed @ git+https://example.org/f.git@abc",
    ]
    assert made.missing == []


def test_a_dataset_that_is_a_file_of_the_run_goes_where_it_was_read(repository: Path) -> None:
    run = run_of(repository, working_folder="sub")
    run.artifacts.append(Artifact(path="data/in.csv", object=DATA))
    digest = f"sha256:{DATA.sha256}"
    run.datasets.append(DatasetVersion(name="near", source="in.csv", digest=digest))
    run.datasets.append(DatasetVersion(name="rooted", source=f"{repository}/d/in.csv", digest=digest))
    run.datasets.append(DatasetVersion(name="far", source="/mnt/in.csv", digest=digest))
    run.datasets.append(DatasetVersion(name="escaping", source="../../../in.csv", digest=digest))
    run.datasets.append(DatasetVersion(name="table", source="postgresql://x/y", digest="sha256:" + "cd" * 32))
    made = planned(run, repository)
    again = repository.parent / "again"
    fetched = [each.path for each in made.steps if isinstance(each, Fetch)]
    assert fetched == [
        again / "code" / "sub" / "in.csv",
        again / "code" / "d" / "in.csv",
        again / "data" / "data" / "in.csv",
        again / "data" / "data" / "in.csv",
    ]
    assert made.notes == [
        "the run read the dataset far from /mnt/in.csv",
        "the run read the dataset escaping from ../../../in.csv",
        "the dataset table is read from where it was (postgresql://x/y)",
    ]


def test_a_program_of_the_packages_is_that_of_the_new_ones(repository: Path) -> None:
    run = run_of(repository, command="/opt/v/bin/python /opt/v/bin/train-all '~/x y'")
    again = repository.parent / "again"
    assert commands(planned(run, repository))[-1] == shlex.join(
        [f"{again}/venv/bin/python", f"{again}/venv/bin/train-all", f"{Path.home()}/x y"]
    )


def test_what_was_not_captured_is_named(repository: Path) -> None:
    run = run_of(repository, commit="c" * 40, command="python", dirty=True)
    run.environment.packages.clear()
    assert planned(run, repository).missing == [
        f"{repository} has no commit {'c' * 40}, and the run told no remote: name --repository",
        "there were uncommitted changes, and they were not captured",
        "the packages were not captured",
        "the command was not captured",
    ]
    run = run_of(repository, command="python x.py aaa\u2026", dirty=True)
    run.environment.packages.add(name="gone", version="1", source="editable:/nowhere/at/all")
    made = planned(run, repository, diff=b"# left out: big.bin (9 bytes)\n" + DIFF)
    assert made.missing == [
        "gone was installed from /nowhere/at/all, which is not there",
        "the command is cut off",
    ]
    assert made.notes == ["too large to be captured: big.bin (9 bytes)"]
    assert planned(run, repository, diff=DIFF, tools=Tools(None, None)).missing[0] == "this machine has no Python 3.11"
    assert planned(Run(name=NAME), repository).missing[0].startswith("the run was not started in a git repository")
    run.pipeline_run = "projects/p/pipelineRuns/x"
    assert planned(run, repository).missing[-1].startswith("it is a step of projects/p/pipelineRuns/x")
    lost = planned(run, repository, diff=b"# left out: the changes since the commit (99 bytes)\n")
    assert "too large to be captured: the changes since the commit (99 bytes)" in lost.missing
