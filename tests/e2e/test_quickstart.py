"""docs/quickstart.md, pasted section by section."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace_local.testing import temporary_folder
from tests.support.platform import Platform

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\w+\.py)\n")
INSTALLED = "Install"
"""Whoever runs this test has done that."""
LIFETIME = ("Start", "Stop")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    section: str
    language: str
    text: str


def blocks() -> list[Block]:
    page = (ROOT / "docs" / "quickstart.md").read_text()
    sections = [each.partition("\n") for each in page.split("\n## ")[1:]]
    return [
        Block(title, language, text) for title, _, body in sections for language, text in BLOCK.findall(body)
    ]  # fmt: skip


class Shell:
    """Pastes blocks into a shell, as somebody who activated the environment would."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**kept, "PATH": path, **environment}

    def paste(self, block: Block) -> str:
        """Save a Python block as the file its first line names, run any other; returns what it printed."""
        if block.language == "python":
            name = FILE_NAME.match(block.text)
            assert name, f"the first line names no file: {block.text[:60]!r}"
            (self._folder / name[1]).write_text(block.text)
            return ""
        assert block.language == "sh"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{block.section}:\n{block.text}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def own_data_folder() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder / "data"


def test_the_platform_starts_and_stops_as_pasted(own_data_folder: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path, {"HEADRACE_DATA": str(own_data_folder)})
    start, stop = (next(each for each in blocks() if each.section == section) for section in LIFETIME)
    try:
        started = shell.paste(start)
    finally:
        stopped = shell.paste(stop)
    assert "gateway" in started
    assert "/enter?code=" in started
    assert "stopped" in stopped


def test_everything_between_start_and_stop_runs_as_pasted(platform: Platform, tmp_path: Path) -> None:
    shell = Shell(tmp_path, {"HEADRACE_DATA": str(platform.folder), "COLUMNS": "200"})
    between = [each for each in blocks() if each.section not in (INSTALLED, *LIFETIME)]
    printed = dict.fromkeys((each.section for each in between), "")
    for block in between:
        printed[block.section] += shell.paste(block)
    assert "by hand" in printed["Record a run"]
    assert (
        "registered projects/default/models/diabetes/versions/1" in printed["Train by a pipeline, register a version"]
    )
    assert "Gates of production" in printed["Approve and promote"]
    assert "approved by persons/operator" in printed["Approve and promote"]
    assert '"prediction_id"' in printed["Serve it"]
    assert "VersionCreated" in printed["Follow the story"]
    assert "/enter?code=" in printed["Follow the story"]
