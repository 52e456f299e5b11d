"""What the demo says and leaves, with an example that does what a test tells it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from headrace.api.orchestrator.v1.resources_pb2 import PipelineRun
from headrace.pipelines.running import PipelineRunFailed
from headrace_local import demo

READY = {"postgres": "ready", "kafka": "ready", "serving": "ready", "monitor": "ready", "orchestrator": "ready"}


@dataclass
class Example:
    """Plays what it was made with: a report, or an error."""

    closed: bool = True
    error: Exception | None = None
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    def modules(self) -> Any:  # Any: stands for a package
        def play(connection: object, **settings: Any) -> object:
            self.settings = {"connection": connection, **settings}
            if self.error:
                raise self.error
            return SimpleNamespace(closed=self.closed, as_dict=lambda: {"closed": self.closed})

        stage = SimpleNamespace(title="replaying the year")
        return SimpleNamespace(
            demo=SimpleNamespace(Stage=lambda: stage, play=play),
            picture=SimpleNamespace(picture=lambda *_, **__: Text("now"), report_lines=lambda _: ["a line"]),
        )


def played(example: Example, folder: Path, monkeypatch: pytest.MonkeyPatch, **parts: str) -> tuple[int, str]:
    """Plays; returns the status and what people read."""
    monkeypatch.setattr(demo, "find", lambda data, _: f"platform in {data}")
    monkeypatch.setenv("HEADRACE_DATA", "")
    states = {**READY, **parts}
    stack: Any = SimpleNamespace(
        folder=SimpleNamespace(path=folder),
        supervised={name: SimpleNamespace(state=state) for name, state in states.items()},
    )
    read = io.StringIO()
    console = Console(file=read, width=200)
    return demo._play(example.modules(), stack, console, pace=7.0, as_json=True, link="http://console"), read.getvalue()


def test_a_loop_that_closed_is_success_and_its_report_one_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = Example()

    status, told = played(example, tmp_path, monkeypatch)

    assert status == 0
    assert json.loads(capsys.readouterr().out) == {"closed": True}
    assert "a line" in told
    assert example.settings["pace"] == 7.0
    assert example.settings["connection"] == f"platform in {tmp_path}"


def test_a_loop_that_stayed_open_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert played(Example(closed=False), tmp_path, monkeypatch)[0] == 1


def test_a_failure_names_what_it_did_and_the_log_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, told = played(Example(error=RuntimeError("no answer")), tmp_path, monkeypatch, kafka="restarting")

    assert status == 1
    assert "while replaying the year: no answer" in told
    assert str(tmp_path / "logs" / "kafka.log") in told.replace("\n", "")
    assert json.loads(capsys.readouterr().out)["log"] == str(tmp_path / "logs" / "kafka.log")


@pytest.mark.parametrize(
    ("error", "away", "log"),
    [
        (RuntimeError("x"), {"postgres": "starting"}, "postgres.log"),
        (PipelineRunFailed(PipelineRun(name="r")), {}, "orchestrator.log"),
        (RuntimeError("monitor at 127.0.0.1:1 does not answer"), {}, "monitor.log"),
        (RuntimeError("x"), {}, "serving.log"),
    ],
)
def test_the_log_is_that_of_the_part_that_failed(error: Exception, away: dict[str, str], log: str) -> None:
    assert demo.log_to_read(error, {**READY, **away}) == log
