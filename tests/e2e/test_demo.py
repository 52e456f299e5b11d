"""``headrace demo`` as people type it, at a terminal: the closed loop on the whole year, KEEP=1, and Ctrl-C."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import termios
from collections.abc import Generator, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, Final

import psutil
import pytest

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.registry.v1.events_pb2 import VersionCreated, VersionPromoted
from headrace.client import Client
from headrace.connection import find
from headrace.story import chain, order_of
from headrace_local.testing import temporary_folder
from tests.support.eventually import eventually
from tests.support.history import faults
from tests.support.loop import history_at_rest
from tests.support.processes import lives

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
FLIGHTS: Final = 284_884
"""Those that left New York from March to December 2013."""
PACE: Final = "2500"
"""Half the usual, so that a busy machine can retrain while the season lasts. The replay waits for nobody."""
HEADRACE: Final = str(Path(sys.executable).with_name("headrace"))
CTRL_C: Final = b"\x03"


class Demo:
    """A demo under way at a terminal of its own; its standard output goes to a file."""

    def __init__(self, folder: Path, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self.data = folder / "data"
        self.told = ""
        """What people saw so far, with the terminal's control sequences."""
        self._report = folder / "report.json"
        self._terminal, theirs = os.openpty()
        with self._report.open("w") as report:
            self.process = psutil.Popen(
                [HEADRACE, "demo", "--json", "--data", str(self.data), *arguments],
                stdin=theirs,
                stdout=report,
                stderr=theirs,
                env={**os.environ, "COLUMNS": "200", "LINES": "50", "TERM": "xterm", **environment},
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        os.close(theirs)
        Thread(target=self._read, daemon=True).start()

    def report(self) -> Any:
        """The one document on the standard output."""
        return json.loads(self._report.read_text())

    def wait_told(self, text: str, *, within_s: float) -> None:
        def told() -> bool:
            assert self.process.poll() is None or text in self.told, self.told
            return text in self.told

        eventually(told, within_s=within_s)

    def interrupt(self) -> int:
        """Presses Ctrl-C. Returns the exit status once everything that the demo started has ended."""
        started = eventually(lambda: self.process.children(recursive=True))
        os.write(self._terminal, CTRL_C)
        status = int(self.process.wait(120))
        eventually(lambda: [each for each in started if lives(each)], lambda left: not left)
        return status

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other side has closed it
            while more := os.read(self._terminal, 65536):
                self.told += more.decode(errors="replace")


@contextlib.contextmanager
def demo(*arguments: str, **environment: str) -> Generator[Demo]:
    with temporary_folder() as folder:
        running = Demo(folder, arguments, environment)
        try:
            yield running
        finally:
            if running.process.poll() is None:
                running.process.kill()
                running.process.wait(30)


def headrace(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HEADRACE, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_the_loop_closes_while_the_year_goes_by_and_what_is_kept_can_be_looked_at() -> None:
    with demo("--pace", PACE, KEEP="1") as running:
        running.wait_told("KEEP=1: everything runs on", within_s=600)
        report = running.report()
        with Client(find(running.data, {})) as client:
            history = history_at_rest(client)
        status = running.interrupt()

    assert status == 0
    assert faults(history) == []
    assert report["closed"], report
    assert report["predictions_sent"] == report["predictions_counted"] == report["flights"] == FLIGHTS
    assert report["labels_joined"] == report["labels_sent"]
    assert report["predictions_of_unknown_outcome"] == report["batches_lost"] == 0
    assert report["alerts"] == sum(report["alerts_by_kind"].values())
    assert_retrained_unprompted(history, report)
    assert_rolled_back(history, report)
    for told in (
        "/enter?code=",
        "replaying the year",
        "AlertRaised",
        "stopping",
        f"headrace up --data {running.data}",
    ):
        assert told in running.told


def assert_retrained_unprompted(history: Sequence[LogEntry], report: Any) -> None:
    """Drift in the data led to a version that serves, by causation ids alone, before anybody did any harm."""
    retrain = next(each for each in report["retrains"] if each["alert_to_serving_s"] is not None)
    causes = causes_of(history, retrain["promoted_event"])
    wanted = ["AlertRaised", "RetrainRequested", "PipelineRunStarted", "RolloutStarted", "VersionPromoted"]
    created = next(
        each
        for each in history
        if name_of(each) == "VersionCreated" and VersionCreated.FromString(each.data).version.name == retrain["version"]
    )
    bad = report["rollbacks"][0]["bad_version"]
    harm = next(
        each
        for each in history
        if name_of(each) == "VersionPromoted" and VersionPromoted.FromString(each.data).version == bad
    )

    assert retrain["kind"].endswith("_DRIFT")
    assert_evident(retrain["evidence"])
    assert [each for each in map(name_of, causes) if each in wanted] == wanted
    assert [each.event_id for each in causes[:2]] == [retrain["alert_event"], retrain["requested_event"]]
    assert order_of(causes[0]) < order_of(harm)
    assert causes_of(history, created.event_id)[:3] == causes[:3]
    depths = {link.entry.event_id: link.depth for link in chain(history, retrain["promoted_event"])}
    assert [depths[each.event_id] for each in causes] == list(range(len(causes)))
    assert retrain["flights_between"] > 0


def assert_rolled_back(history: Sequence[LogEntry], report: Any) -> None:
    """The version made bad on purpose was taken back, by causation ids alone."""
    (rollback,) = report["rollbacks"]
    causes = causes_of(history, rollback["rolled_back_event"])

    assert_evident(rollback["evidence"])
    assert [name_of(each) for each in causes[:2]] == ["AlertRaised", "RollbackRequested"]
    assert [each.event_id for each in causes[:2]] == [rollback["alert_event"], rollback["requested_event"]]
    assert name_of(causes[-1]) == "VersionRolledBack"
    assert rollback["version"] != rollback["bad_version"]
    assert rollback["flights_answered"] > 0


def assert_evident(evidence: Sequence[Any]) -> None:
    assert evidence
    assert all(each["value"] > each["threshold"] for each in evidence)


def causes_of(history: Sequence[LogEntry], event_id: str) -> list[LogEntry]:
    """The event and the causes of it, first cause first."""
    by_id = {entry.event_id: entry for entry in history}
    found: list[LogEntry] = []
    while event_id:
        found.insert(0, by_id[event_id])
        event_id = found[0].meta.causation_id
    return found


def name_of(entry: LogEntry) -> str:
    return entry.type.rpartition(".")[2]


@pytest.mark.parametrize("stage", ["starting the platform", "replaying the year"])
def test_ctrl_c_ends_everything_and_leaves_the_data(stage: str) -> None:
    with demo("--pace", "500") as running:
        running.wait_told(stage, within_s=240)
        status = running.interrupt()
        state = headrace("status", "--data", str(running.data), "--json")

        assert status == 130, running.told
        assert "Traceback" not in running.told
        assert (running.data / "postgres").is_dir() or stage == "starting the platform"
        assert state.returncode == 1
