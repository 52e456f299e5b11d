"""The workspace's own files agree with each other, and speak of no machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
PYTHON_LOCKS = tuple(f"requirements{name}.lock" for name in ("", "-dev", "-uv", "-mlflow", "-modelsigning"))
LOCKS = (*PYTHON_LOCKS, "jgo.lock.toml", "package-lock.json")
TARGETS = frozenset(
    "setup setup-system gen lint types test test-fast demo up down bench docs lock assets".split()  # noqa: SIM905
)
PAPERS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
MACHINE_PATH = re.compile(rb"(?<![\w.~}/-])/(?:work|root|Users)/[A-Za-z0-9._]")
HOST = re.compile(
    r"https?://|file:|\b[\w-]+\.(?:org|com|io|net|internal|local)/|(?<![\w@])/(?:work|root|home|tmp|opt)/"
)


MEMBER_FILES = [
    ROOT / "pyproject.toml",
    *sorted(ROOT.glob("libs/*/pyproject.toml")),
    *sorted(ROOT.glob("services/*/pyproject.toml")),
]


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def members() -> dict[str, Path]:
    """Every member's import name and folder."""
    files = [file for file in MEMBER_FILES if file.parent != ROOT]
    return {tomllib.loads(file.read_text())["project"]["name"].replace("-", "_"): file.parent for file in files}


def contract(contract_id: str) -> dict[str, Any]:
    return next(each for each in pyproject()["tool"]["importlinter"]["contracts"] if each["id"] == contract_id)


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=30).stdout
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_import_contracts_know_every_member() -> None:
    layers = {name for layer in contract("distributions")["layers"] for name in layer.split(" | ")}
    assert layers == set(members())
    assert set(pyproject()["tool"]["importlinter"]["root_packages"]) == set(members())


@pytest.mark.parametrize("library", ["asyncpg", "aiokafka", "minio"])
def test_client_libraries_are_fenced_in_every_member(library: str) -> None:
    assert set(contract(library)["source_modules"]) == set(members())


def test_faust_and_river_are_fenced_in_every_member_but_the_monitor() -> None:
    assert set(contract("faust-river")["source_modules"]) == set(members()) - {"headrace_monitor"}


def test_every_service_has_exhaustive_layers() -> None:
    for folder in sorted((ROOT / "services").iterdir()):
        layers = contract(folder.name)
        assert layers["containers"] == [f"headrace_{folder.name}"]
        assert layers["exhaustive"] is True


def test_set_up_and_type_checkers_know_every_member() -> None:
    config = pyproject()
    distributions = {name.replace("_", "-") for name in members()}
    assert distributions <= set(config["project"]["dependencies"])
    assert distributions == set(config["tool"]["uv"]["sources"])
    mypy_path = {path.removeprefix("$MYPY_CONFIG_FILE_DIR") for path in config["tool"]["mypy"]["mypy_path"]}
    assert mypy_path == {"", "/examples", *(f"/{folder.relative_to(ROOT)}" for folder in members().values())}


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_name_no_host_and_no_path(lock: str) -> None:
    found = [line for line in (ROOT / lock).read_text().splitlines() if HOST.search(line)]
    assert found == []


def test_run_time_versions_are_the_developers() -> None:
    def pins(lock: str) -> set[str]:
        return {line.rstrip(" \\") for line in (ROOT / lock).read_text().splitlines() if re.match(r"[a-z0-9]", line)}

    assert pins("requirements.lock") <= pins("requirements-dev.lock")


@pytest.mark.parametrize(("lock", "groups"), [("requirements.lock", ()), ("requirements-dev.lock", ("dev",))])
def test_locks_satisfy_what_is_declared(lock: str, groups: tuple[str, ...]) -> None:
    pinned: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==([^ ]+)", (ROOT / lock).read_text(), re.MULTILINE):
        pinned.setdefault(canonicalize_name(name), []).append(version)
    projects = [tomllib.loads(file.read_text()) for file in MEMBER_FILES]
    declared = [each for project in projects for each in project["project"].get("dependencies", [])]
    declared += [each for group in groups for each in pyproject()["dependency-groups"][group]]
    ours = {canonicalize_name(name) for name in members()}
    foreign = [each for each in map(Requirement, declared) if canonicalize_name(each.name) not in ours]

    def met(requirement: Requirement) -> bool:
        return any(map(requirement.specifier.contains, pinned.get(canonicalize_name(requirement.name), [])))

    assert [str(each) for each in foreign if not met(each)] == [], "run `make lock`"


def test_every_locked_requirement_has_a_digest() -> None:
    for lock in PYTHON_LOCKS:
        requirements = re.split(r"\n(?=[a-z0-9])", (ROOT / lock).read_text())[1:]
        assert requirements
        assert [each for each in requirements if "--hash=sha256:" not in each] == []


def test_bare_make_lists_every_documented_target() -> None:
    helped = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout
    listed = {line.split()[0] for line in helped.splitlines() if line.strip()}
    assert listed >= TARGETS


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
def test_papers_name_only_targets_that_exist(paper: Path) -> None:
    text = paper.read_text()
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.DOTALL))
    commands = [*re.findall(r"`(make [^`\n]+)`", text), *re.findall(r"^(make [^#\n]+)", blocks, re.MULTILINE)]
    named = {word for command in commands for word in command.split()[1:] if re.fullmatch(r"[a-z-]+", word)}
    makefile = (ROOT / "Makefile").read_text()
    assert [word for word in sorted(named) if not re.search(rf"^{word}:", makefile, re.MULTILINE)] == []


def test_no_path_of_a_machine_stands_in_the_tree() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in tracked_files()
        for match in MACHINE_PATH.finditer(path.read_bytes())
    ]
    assert found == []
