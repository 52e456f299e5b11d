"""The loop as a live picture in the terminal, and the report in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flights.demo import Stage
from flights.errors import Errors
from flights.report import Report
from headrace import story
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.monitor.v1 import events_pb2 as monitor
from headrace.api.orchestrator.v1 import events_pb2 as orchestrator
from headrace.api.registry.v1 import events_pb2 as registry
from headrace.api.serving.v1 import events_pb2 as serving

STORY: Final = (
    monitor.AlertRaised,
    monitor.RetrainRequested,
    monitor.RollbackRequested,
    orchestrator.PipelineRunStarted,
    orchestrator.PipelineRunSucceeded,
    orchestrator.PipelineRunFailed,
    registry.VersionCreated,
    registry.VersionApproved,
    registry.VersionPromoted,
    registry.VersionRolledBack,
    registry.RollbackRefused,
    serving.RolloutStarted,
    serving.RolloutCompleted,
    serving.RolloutAborted,
    serving.VersionBlocked,
)
"""Events that people read as the story."""
LINES: Final = 14


def picture(stage: Stage, *, console_url: str = "") -> RenderableType:
    """What happens now: where the year is, who answers, and the last events of the story."""
    head = Table.grid(padding=(0, 2))
    head.add_column(style="dim", justify="right", width=10)
    head.add_column()
    head.add_row("now", Text(stage.title, style="bold"))
    if stage.application is not None:
        progress = stage.application.progress
        moment = datetime.fromtimestamp(progress.event_us / 1e6, tz=UTC)
        answered = " ".join(f"v{name.rpartition('/')[2]}: {rows:,}" for name, rows in progress.versions.items())
        head.add_row("flights", ProgressBar(total=max(stage.rows, 1), completed=progress.predictions, width=50))
        head.add_row("date", f"{moment:%d %B %Y}   {progress.predictions:,} predictions, {progress.labels:,} labels")
        head.add_row("answers", answered.replace(",", " "))
    if console_url:
        head.add_row("console", Text(console_url, style="underline"))
    lines = [line for entry in sorted(stage.entries.copy().values(), key=story.order_of) if (line := story_line(entry))]
    body = Group(*lines[-LINES:]) if lines else Text("the story begins with the first alert", style="dim")
    return Group(head, Panel(body, title="train → track → register → serve → watch → retrain", title_align="left"))


def story_line(entry: LogEntry) -> Text | None:
    """One line about an event of the story; None for others."""
    message = story.decode(entry)
    if not isinstance(message, STORY):
        return None
    source = entry.source.rpartition("/")[2]
    name = entry.type.rpartition(".")[2]
    line = Text(f"{entry.recorded_at.ToDatetime():%H:%M:%S.%f}"[:-3], style="dim")
    line.append(f"  {source:<12} ", style="cyan")
    line.append(f"{name:<22}", style="bold red" if "Alert" in name or "Roll" in name or "Blocked" in name else "bold")
    line.append(_about(message))
    return line


def report_lines(report: Report) -> list[str]:
    """The report in sentences."""
    lines = [
        (
            f"{report.flights:,} flights in {report.seconds:.0f} s; {report.predictions_sent:,} predictions sent,"
            f" {report.predictions_counted:,} counted by the monitor, {report.batches_lost} batches lost;"
            f" {report.labels_joined:,} of {report.labels_sent:,} labels joined"
        ),
        f"mean error {_against(report.errors)}",
    ]
    if report.errors_july_to_october is not None:
        lines.append(f"July to October: {_against(report.errors_july_to_october)}")
    for retrain in report.retrains:
        outcome = (
            f"version {retrain.version.rpartition('/')[2]} promoted after {retrain.alert_to_promotion_s:.1f} s,"
            f" {retrain.flights_between:,} flights later"
            if retrain.promoted_event
            else "the version that served stayed: the new one was not better"
        )
        lines.append(f"{retrain.event_time[:10]}  {retrain.alert} → {outcome}")
    for rollback in report.rollbacks:
        took = [
            f"{seconds * 1000:.0f} ms to {what}"
            for what, seconds in (
                ("the old version's answers", rollback.request_to_serving_s),
                ("the alias", rollback.request_to_alias_s),
            )
            if seconds is not None
        ]
        lines.append(
            f"version {rollback.bad_version.rpartition('/')[2]} was bad: rolled back to"
            f" {rollback.version.rpartition('/')[2]}, {', '.join(took)};"
            f" it answered {rollback.flights_answered:,} flights"
        )
    return [line.replace(",", " ") if line[:1].isdigit() and "predictions sent" in line else line for line in lines]


def _against(errors: Errors) -> str:
    return (
        f"{errors.with_loop:.2f} min with the loop, {errors.frozen:.2f} with the first model frozen"
        f" ({_change(errors.with_loop, errors.frozen)}); without the flights of the version made bad on purpose"
        f" {errors.with_loop_but_bad:.2f} and {errors.frozen_but_bad:.2f}"
        f" ({_change(errors.with_loop_but_bad, errors.frozen_but_bad)}):"
        f" {_verdict(errors)}"
    )


def _verdict(errors: Errors) -> str:
    saved = f"{errors.saved_but_bad:.2f} ± {errors.saved_but_bad_standard_error:.2f} min a flight"
    if errors.beats_frozen_but_bad:
        return f"the loop saved {saved}"
    return f"the loop did not clearly beat the frozen model, {saved}"


def _change(loop: float, frozen: float) -> str:
    return f"{(loop / frozen - 1) * 100:+.1f} %"


def _about(message: object) -> str:  # noqa: PLR0911 - one line an event
    match message:
        case monitor.AlertRaised():
            return message.alert.summary
        case monitor.RetrainRequested() | monitor.RollbackRequested():
            return message.reason
        case orchestrator.PipelineRunStarted():
            return f"{message.run.pipeline.rpartition('/')[2]} ({message.run.cause})"
        case orchestrator.PipelineRunFailed():
            return message.error.strip().rpartition("\n")[2]
        case registry.VersionCreated():
            return f"version {message.version.number} by {message.version.author}"
        case registry.VersionApproved():
            return f"version {message.version.rpartition('/')[2]} by {message.approval.actor}"
        case registry.VersionPromoted() | registry.VersionRolledBack():
            move = message.promotion
            return f"{move.alias}: {move.previous_version or '-'} → {move.version}  {move.reason}"
        case registry.RollbackRefused() | serving.RolloutAborted() | serving.VersionBlocked():
            return message.reason
        case serving.RolloutStarted():
            return f"version {message.rollout.version.rpartition('/')[2]} by steps of {list(message.rollout.steps)} %"
        case serving.RolloutCompleted():
            return f"version {message.version.rpartition('/')[2]}"
        case _:
            return ""
