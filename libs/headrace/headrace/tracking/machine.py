"""Metrics of the machine a run is on, sampled in a thread: processor, memory, disk, network, accelerators.

Keys begin with ``system/``; shares are percent, sizes bytes, rates bytes a second since the sample before. ``process_``
is the training process alone, whose processor share may pass 100; the rest is the whole machine. Accelerators are told
where NVIDIA's library can be imported (package ``nvidia-ml-py``). The step of a sample is its time, whole seconds since
1970 UTC, so that a run that is resumed goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

import psutil

INTERVAL_S: Final = 10.0
MAX_GPUS: Final = 64
_JOIN_S: Final = 1.0
_log = logging.getLogger("headrace")

Record = Callable[[Mapping[str, float], int], None]


class Machine:
    """Reads the machine. For one thread."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # what is told is the share since the call before
        psutil.cpu_percent()
        self._totals = _totals()
        self._read_s = time.monotonic()
        self._gpus = _Gpus()

    def read(self) -> dict[str, float]:
        """What the machine does now, by key; what it does not tell is left out."""
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(".")
        now_s, totals = time.monotonic(), _totals()
        passed_s = max(now_s - self._read_s, 1e-3)
        rates = {key: max(totals[key] - self._totals[key], 0) / passed_s for key in totals.keys() & self._totals.keys()}
        self._read_s, self._totals = now_s, totals
        found = {
            "cpu_percent": psutil.cpu_percent(),
            "memory_percent": memory.percent,
            "memory_used_bytes": float(memory.total - memory.available),
            "disk_used_percent": disk.percent,
            "process_cpu_percent": self._process.cpu_percent(),
            "process_memory_bytes": float(self._process.memory_info().rss),
            **rates,
            **self._gpus.read(),
        }
        return {f"system/{key}": value for key, value in found.items()}


class Sampler:
    """Records what the machine does, every ``interval_s`` seconds, in a thread that dies with the process.

    Whatever goes wrong in it is logged once, and never reaches the training code.
    """

    def __init__(self, record: Record, *, interval_s: float = INTERVAL_S) -> None:
        self._record, self._interval_s = record, interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-machine", daemon=True)

    def start(self) -> None:
        """Begins; the first sample comes after the first interval."""
        self._thread.start()

    def stop(self) -> None:
        """Takes no more samples; waits a moment for one that is under way."""
        self._stopping.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        machine: Machine | None = None
        complained = False
        while True:
            try:
                machine = machine or Machine()
                if self._stopping.wait(self._interval_s):
                    return
                self._record(machine.read(), int(time.time()))
            except Exception as error:  # noqa: BLE001 - training goes on whatever the machine does not tell
                if not complained and not self._stopping.is_set():
                    _log.warning("the machine is not measured: %s", error)
                complained = True
                if self._stopping.wait(self._interval_s):
                    return


class _Gpus:
    """Accelerators, as NVIDIA's library tells them; none without it."""

    def __init__(self) -> None:
        self._library: Any = None  # Any: it has no types, and need not be installed
        self._handles: list[Any] = []
        try:
            library = import_module("pynvml")
            library.nvmlInit()
            count = min(int(library.nvmlDeviceGetCount()), MAX_GPUS)
            self._handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
            self._library = library
        except Exception:  # noqa: BLE001 - no library, no driver, no device: nothing to tell
            self._handles = []

    def read(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for index, handle in enumerate(self._handles):
            with suppress(Exception):  # a device need not tell everything
                used = self._library.nvmlDeviceGetUtilizationRates(handle)
                found[f"gpu{index}_percent"] = float(used.gpu)
            with suppress(Exception):
                memory = self._library.nvmlDeviceGetMemoryInfo(handle)
                found[f"gpu{index}_memory_percent"] = 100.0 * memory.used / memory.total
                found[f"gpu{index}_memory_used_bytes"] = float(memory.used)
            with suppress(Exception):
                found[f"gpu{index}_power_watts"] = self._library.nvmlDeviceGetPowerUsage(handle) / 1000
        return found


def _totals() -> dict[str, float]:
    """Bytes since the machine started, under the names that their rates have."""
    found: dict[str, float] = {}
    disk, network = psutil.disk_io_counters(), psutil.net_io_counters()
    if disk is not None:  # a machine without disks of its own
        found["disk_read_bytes_per_s"] = disk.read_bytes
        found["disk_written_bytes_per_s"] = disk.write_bytes
    if network is not None:  # pyright: ignore[reportUnnecessaryComparison] - None on machines without interfaces
        found["network_received_bytes_per_s"] = network.bytes_recv
        found["network_sent_bytes_per_s"] = network.bytes_sent
    return found
