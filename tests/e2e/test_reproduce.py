"""A run is done again on a running platform: commit, changes, packages, data, command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from tests.support.platform import Platform

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

PROGRAM = str(Path(sys.executable).with_name("headrace"))
ROOT = Path(__file__).resolve().parents[2]
TRAIN = """
import sys
from pathlib import Path
import numpy
import headrace
from features import double

with headrace.start_run("again", project=sys.argv[1]) as run:
    run.log_dataset("data/in.csv", "numbers")
    run.log_artifact("data/in.csv")
    run.log_param("numpy", numpy.__version__)
    run.log_param("where", Path.cwd().name)
    run.log_metric("sum", double(sum(float(each) for each in Path("data/in.csv").read_text().split())))
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a committed script that needs a change, a new file and ignored data."""
    folder = tmp_path / "project"
    (folder / "sub" / "data").mkdir(parents=True)
    (folder / "sub" / "train.py").write_text(TRAIN)
    (folder / "sub" / "features.py").write_text("raise SystemExit('not finished')\n")
    (folder / ".gitignore").write_text("data/\n__pycache__/\n")
    identity = ("-c", "user.name=n", "-c", "user.email=n@example.org")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "first")):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    (folder / "sub" / "features.py").write_text("from helper import double\n")
    (folder / "sub" / "helper.py").write_text("def double(x): return 2 * x\n")
    (folder / "sub" / "data" / "in.csv").write_text("1\n2.5\n")
    return folder


def reproduce(repository: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "reproduce", *arguments],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def test_a_run_is_done_again_with_everything_it_captured(platform: Platform, project: str, repository: Path) -> None:
    environment = {
        **os.environ,
        "HEADRACE_DATA": str(platform.folder),
        "HEADRACE_SPOOL": str(repository.parent / "spool"),
        "PATH": f"{ROOT / '.tools' / 'uv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "train.py", project]
    subprocess.run(command, cwd=repository / "sub", env=environment, check=True, timeout=120, capture_output=True)

    def runs() -> list[resources.Run]:
        with platform.client() as client:
            found = client.tracking.SearchRuns(
                service.SearchRunsRequest(parent=f"projects/{project}", order_by="start_time asc")
            )
        return list(found.runs)

    [first] = runs()
    assert first.metrics["sum"].last == 7.0
    told = reproduce(repository, environment, first.name, "--dry-run")
    assert told.returncode == 0, told.stderr
    assert f"worktree add --detach {repository}/reproduced-" in told.stdout
    assert not list(repository.glob("reproduced-*"))
    for path in ("features.py", "helper.py", "data/in.csv"):
        (repository / "sub" / path).unlink()

    done = reproduce(repository, environment, first.name, "--folder", "again")
    assert done.returncode == 0, done.stderr
    assert "reproduced as " in done.stdout
    [_, second] = runs()
    assert second.tags["headrace.reproduces"] == first.name
    assert second.metrics["sum"].last == 7.0
    assert second.code.commit == first.code.commit
    assert dict(second.params) == dict(first.params)
    assert second.datasets[0].digest == first.datasets[0].digest
    assert second.environment.packages_digest == first.environment.packages_digest
    with platform.client() as client:
        whole = client.tracking.GetRun(service.GetRunRequest(name=second.name)).run
    assert f"{repository}/again/venv" in whole.code.command_line.replace("~", str(Path.home()))
    once_more = reproduce(repository, environment, first.name, "--folder", "again")
    assert (once_more.returncode, "exists: give another --folder" in once_more.stderr) == (1, True)


def test_what_was_not_captured_is_told(platform: Platform, project: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HEADRACE_DATA": str(platform.folder), "HEADRACE_SPOOL": str(tmp_path / "spool")}
    code = f"import headrace; run = headrace.start_run('x', project={project!r}); run.finish(); print(run.name)"
    alone = tmp_path / "no repository"
    alone.mkdir()
    name = subprocess.run(
        [sys.executable, "-c", code], cwd=alone, env=environment, check=True, timeout=60, capture_output=True, text=True
    ).stdout.strip()
    done = reproduce(alone, environment, name)
    assert done.returncode == 1
    assert "error NOT_CAPTURED: not everything was captured: the run was not started in a git repository" in done.stderr
    assert list(alone.iterdir()) == []
