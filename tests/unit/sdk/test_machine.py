"""The machine, as a run samples it."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import headrace
from headrace.api.tracking.v1.resources_pb2 import MetricPoint
from headrace.api.tracking.v1.service_pb2 import LogMetricsRequest
from headrace.tracking.machine import Machine, Sampler
from headrace.tracking.sender import Kind
from headrace.tracking.spool import Spool
from tests.support.eventually import eventually


def points(folder: Path, run: headrace.Run) -> list[MetricPoint]:
    spool = Spool(folder, run.id)
    records = [each.payload for each in spool.records(0) if each.kind == Kind.METRIC_POINTS]
    found = list(LogMetricsRequest.FromString(b"".join(records)).points)
    spool.close()
    return found


def test_shares_are_percent_and_sizes_are_bytes(tmp_path: Path) -> None:
    machine = Machine()
    (tmp_path / "written").write_bytes(b"x" * 1000)
    found = machine.read()
    assert 0 <= found["system/cpu_percent"] <= 100
    assert 0 < found["system/memory_percent"] <= 100
    assert found["system/process_memory_bytes"] > 1_000_000
    assert found["system/memory_used_bytes"] > found["system/process_memory_bytes"] / 2
    assert min(found.values()) >= 0


def test_accelerators_are_told_where_the_library_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def power(_handle: int) -> int:
        raise RuntimeError("this device does not tell")

    library = ModuleType("pynvml")
    vars(library).update(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=40 + handle),
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(used=1, total=4),
        nvmlDeviceGetPowerUsage=power,
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    found = {key: value for key, value in Machine().read().items() if "gpu" in key}
    assert found == {
        f"system/gpu{index}_{key}": value
        for index in (0, 1)
        for key, value in (("percent", 40.0 + index), ("memory_percent", 25.0), ("memory_used_bytes", 1.0))
    }


def test_a_run_samples_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_SPOOL", str(tmp_path))
    monkeypatch.setenv("HEADRACE_SYSTEM_METRICS_S", "0.01")
    sizes: list[int] = []
    with headrace.start_run("x", offline=True) as run:
        spool = tmp_path / f"{run.id}.spool"
        before = spool.stat().st_size
        eventually(lambda: spool.stat().st_size > before + 2000)
    sizes.append(spool.stat().st_size)
    sampled = points(tmp_path, run)
    assert {"system/cpu_percent", "system/process_memory_bytes"} <= {each.key for each in sampled}
    assert all(each.key.startswith("system/") and abs(each.step - time.time()) < 60 for each in sampled)
    assert not [each for each in threading.enumerate() if each.name == "headrace-machine"]


@pytest.mark.parametrize("by_environment", [False, True])
def test_it_is_left_out_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool) -> None:
    monkeypatch.setenv("HEADRACE_SPOOL", str(tmp_path))
    monkeypatch.setenv("HEADRACE_SYSTEM_METRICS_S", "0.01")
    monkeypatch.setenv("HEADRACE_SYSTEM_METRICS", "0" if by_environment else "1")
    with headrace.start_run("x", offline=True, system_metrics=None if by_environment else False) as run:
        assert not [each for each in threading.enumerate() if each.name == "headrace-machine"]
    assert points(tmp_path, run) == []


def test_a_machine_that_can_not_be_read_is_told_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    seen = threading.Event()
    calls: list[int] = []

    def record(values: Mapping[str, float], step: int) -> None:
        calls.append(step)
        if len(calls) < 3:
            raise OSError("no disk")
        seen.set()

    with caplog.at_level(logging.WARNING, logger="headrace"):
        sampler = Sampler(record, interval_s=0.001)
        sampler.start()
        assert seen.wait(30)
        sampler.stop()
    assert [each.getMessage() for each in caplog.records] == ["the machine is not measured: no disk"]
