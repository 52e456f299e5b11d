"""``headrace traces`` on a running platform."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from headrace.api.tracking.v1.service_pb2 import LogSpansRequest
from tests.support.platform import Platform
from tests.support.spans import span, trace_id

pytestmark = pytest.mark.timeout(180)
Headrace = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def headrace(platform: Platform, project: str) -> Headrace:
    """Runs ``headrace traces`` in the project."""
    environment = {**os.environ, "HEADRACE_DATA": str(platform.folder), "COLUMNS": "200", "NO_COLOR": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "headrace"), "traces", *arguments, "--project", project]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def traced(platform: Platform, project: str) -> str:
    """A trace that failed, beside one that did not; its id."""
    failed, other = trace_id(), trace_id()
    spans = [
        span(failed, 1, name="answer [bold]", took_s=3, failed=True, model="small"),
        span(failed, 2, parent=1, name="retrieve", start_s=1),
        span(failed, 3, parent=2, name="read", start_s=1.5, took_s=0.25),
        span(other, 1, name="well", start_s=9),
    ]
    spans[0].status_message = "too late\nfor this"
    request = LogSpansRequest(command_id=str(uuid4()), experiment=f"projects/{project}/experiments/shop", spans=spans)
    with platform.client() as client:
        client.tracking.LogSpans(request)
    return failed


def test_traces_are_listed_by_filter_and_shown_as_a_tree(headrace: Headrace, traced: str) -> None:
    listed = headrace("list", "--filter", 'status = "ERROR"', "--experiment", "shop", "--json")
    assert [each["name"].rpartition("/")[2] for each in json.loads(listed.stdout)] == [traced]
    assert "well" in headrace("list").stdout
    shown = headrace("show", f"tr-{traced}", "--attributes")
    assert shown.returncode == 0, shown.stderr
    lines = [line.rstrip() for line in shown.stdout.splitlines()]
    assert "answer [bold]  3 s  too late" in lines
    assert lines.index("  retrieve  1 s") + 1 == lines.index("    read  250 ms")
    assert '    model "small"' in lines
    found = json.loads(headrace("show", traced, "--json").stdout)
    assert (found["state"], len(found["spans"])) == ("TRACE_STATE_ERROR", 3)


def test_a_filter_that_can_not_be_read_is_pointed_at(headrace: Headrace) -> None:
    refused = headrace("list", "--filter", 'status = "OK" and colour = 3')
    assert refused.returncode == 1
    assert f'status = "OK" and colour = 3\n{" " * 18}^' in refused.stderr


def test_traces_are_deleted_when_it_is_meant(headrace: Headrace, traced: str) -> None:
    assert headrace("delete", traced, "--experiment", "shop").returncode == 1  # nobody said yes
    assert headrace("delete", "--experiment", "shop", "--yes").returncode == 2
    assert headrace("delete", traced, "--filter", "name = 'a'", "--yes").returncode == 2
    gone = headrace("delete", traced, "--experiment", "shop", "--yes", "--json")
    assert json.loads(gone.stdout)["span_count"] == "3", gone.stderr
    assert headrace("show", traced).returncode == 1
    gone = headrace("delete", "--filter", 'name like "w%"', "--experiment", "shop", "--yes")
    assert gone.stdout.startswith("Deleted 1 traces with 1 spans"), gone.stderr
    assert json.loads(headrace("list", "--json").stdout) == []
