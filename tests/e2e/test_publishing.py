"""An application that serves its own model: what it publishes is counted, joined and shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.api.monitor.v1 import resources_pb2 as resources
from headrace.api.monitor.v1 import service_pb2 as monitor
from tests.support import predictions
from tests.support.platform import Platform

pytestmark = pytest.mark.timeout(300)
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("way", ["--grpc", "--kafka"])
def test_scores_are_counted_and_outcomes_joined(platform: Platform, project: str, tmp_path: Path, way: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environment = {**kept, "HEADRACE_DATA": str(platform.folder), "HEADRACE_SPOOL": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "flights.publish_delays", "--project", project, "--to-month", "3", "--json"]
        + ["--kafka"] * (way == "--kafka"),
        cwd=EXAMPLES,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    told = json.loads(done.stdout)
    assert told["predictions_counted"] == told["predictions_sent"] > 25_000
    assert told["labels_joined"] == told["labels_sent"] > 25_000
    assert told["batches_lost"] == 0
    assert 0 < told["log_loss"] < 0.5  # guessing by the share of late flights gives more
    by_id = predictions.find(platform.addresses, project=project, endpoint="late-arrivals")
    assert by_id.published_twice == 0
    assert by_id.counted == by_id.published
    assert sum(by_id.counted.values()) == told["predictions_sent"]
    name = f"projects/{project}/monitors/late-arrivals"
    with platform.client() as client:
        found = client.monitor.GetMonitor(monitor.GetMonitorRequest(name=name)).monitor
        windows = client.monitor.ListWindows(monitor.ListWindowsRequest(monitor=name, page_size=1000)).windows
    assert found.config.task == resources.TASK_KIND_BINARY_CLASSIFICATION
    assert sum(each.predictions for each in windows) == told["predictions_sent"]
    assert len(windows) == told["windows"] > 100  # March has 124 slots of six hours; at night few fly
