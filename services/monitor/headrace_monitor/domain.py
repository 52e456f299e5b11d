"""Pure: monitor state + command -> events; monitor state + event -> state."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID, uuid5

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.monitor.v1 import events_pb2 as events
from headrace.api.monitor.v1 import resources_pb2 as resources
from headrace.api.monitor.v1 import service_pb2 as service
from headrace.api.monitor.v1.resources_pb2 import Alert, AlertKind, Finding, Monitor, MonitorConfig, Verdict
from headrace_kit.context import CommandContext
from headrace_kit.decided import Caused, Decided
from headrace_kit.errors import AlreadyExists, FailedPrecondition, NotFound, Violation

MAX_RECENT_ALERTS = 100
VERDICTS = UUID("9b1c6f0a-3c52-5a0e-8f52-6a6d4a1e7f10")
"""Root of the command ids of decisions. Fixed for ever: changing it would decide every slot again."""

SEALS = UUID("5e0f5b0d-7a0f-5d0c-9a4b-2f3f3c1d8b62")
"""Root of the command ids of seals."""

_QUALITY = "quality:"
_DRIFTS = (
    resources.ALERT_KIND_INPUT_DRIFT,
    resources.ALERT_KIND_PREDICTION_DRIFT,
    resources.ALERT_KIND_CONCEPT_DRIFT,
)
_FIXED = ("task", "prediction_column", "slot_s")


def verdict_command_id(monitor: str, *, config_revision: int, slot_us: int) -> UUID:
    """Id of the one command that decides a slot under a revision of the settings."""
    return uuid5(VERDICTS, f"{monitor}|{config_revision}|{slot_us}")


def seal_command_id(monitor: str, *, until_us: int) -> UUID:
    """Id of the one command that seals a monitor's windows up to a time."""
    return uuid5(SEALS, f"{monitor}|{until_us}")


def decide_create(
    state: Monitor | None, request: service.CreateMonitorRequest, config: MonitorConfig, context: CommandContext
) -> Sequence[Message]:
    """``config`` is the request's, completed and checked."""
    if state is not None:
        raise AlreadyExists(f"monitor {request.name} exists", field="name")
    created = events.MonitorCreated(
        monitor=request.name, endpoint=request.endpoint, config=config, creator=context.actor
    )
    created.time.FromDatetime(context.now)
    return [created]


def decide_configure(state: Monitor | None, name: str, config: MonitorConfig) -> Sequence[Message]:
    """What slots are made of stays as it is."""
    monitor = _existing(state, name)
    changed = [field for field in _FIXED if getattr(config, field) != getattr(monitor.config, field)]
    if changed:
        raise FailedPrecondition(
            "slots are counted by these settings: make another monitor to change them",
            [Violation("FIXED_SETTING", field, f"{field} of a monitor never changes") for field in changed],
            field=f"config.{changed[0]}",
        )
    if config == monitor.config:
        return []
    return [events.MonitorConfigured(monitor=name, config=config, config_revision=monitor.config_revision + 1)]


def decide_pause(state: Monitor | None, request: service.PauseMonitorRequest) -> Sequence[Message]:
    """Nothing when it is so already."""
    if _existing(state, request.name).paused == request.paused:
        return []
    return [events.MonitorPaused(monitor=request.name, paused=request.paused, reason=request.reason)]


def decide_acknowledge(
    state: Monitor | None, request: service.AcknowledgeAlertRequest, monitor: str, context: CommandContext
) -> Sequence[Message]:
    """The first to take note of an alert stands."""
    alert = find_alert(_existing(state, monitor), request.alert)
    if alert.acknowledged_by:
        return []
    return [events.AlertAcknowledged(alert=request.alert, actor=context.actor, note=request.note)]


def decide_verdict(state: Monitor | None, name: str, verdict: Verdict, context: CommandContext) -> Sequence[Decided]:
    """Turns what detectors found into alerts and requests, unless these rest; an alert causes its request."""
    monitor = _existing(state, name)
    if monitor.paused:
        return []
    decided: list[Decided] = []
    broken = [each for each in verdict.findings if each.channel.startswith(_QUALITY)]
    drifted = [each for each in verdict.findings if not each.channel.startswith(_QUALITY)]
    for findings in (broken, drifted):
        alert = _drift_alert(monitor, verdict, findings, context, index=len(decided))
        if alert is not None:
            decided.append(events.AlertRaised(alert=alert))
    if drifted:
        decided.extend(_retrain(monitor, verdict, decided))
    decided.extend(_bad_version(monitor, verdict, context, index=len(decided)))
    return decided


def decide_seal(state: Monitor | None, seal: events.WindowsSealed, context: CommandContext) -> Sequence[Message]:
    """Nothing when another seal came first: ranges follow each other without a gap, and none is sealed twice."""
    monitor = _existing(state, seal.monitor)
    if monitor.HasField("sealed_until") and monitor.sealed_until != getattr(seal, "from"):
        return []
    sealed = events.WindowsSealed()
    sealed.CopyFrom(seal)
    sealed.time.FromDatetime(context.now)
    return [sealed]


def evolve(state: Monitor | None, event: Message) -> Monitor:
    """The state after an event."""
    monitor = Monitor()
    if state is not None:
        monitor.CopyFrom(state)
    monitor.revision += 1
    match event:
        case events.MonitorCreated():
            monitor.name, monitor.endpoint, monitor.creator = event.monitor, event.endpoint, event.creator
            monitor.config.CopyFrom(event.config)
            monitor.config_revision = 1
            monitor.create_time.CopyFrom(event.time)
        case events.MonitorConfigured():
            monitor.config.CopyFrom(event.config)
            monitor.config_revision = event.config_revision
        case events.MonitorPaused():
            monitor.paused = event.paused
        case events.AlertRaised():
            _raise(monitor, event.alert)
        case events.AlertAcknowledged():
            for alert in monitor.recent_alerts:
                if alert.name == event.alert:
                    alert.acknowledged_by = event.actor
        case events.RetrainRequested():
            _rest(monitor, "retrain", event.data_until)
        case events.RollbackRequested():
            alert = find_alert(monitor, event.alert)
            _rest(monitor, f"rollback:{event.bad_version}", alert.slot)
        case events.WindowsSealed():
            monitor.sealed_until.CopyFrom(event.until)
            monitor.sealed_time.CopyFrom(event.time)
        case _:
            pass
    return monitor


def find_alert(monitor: Monitor, name: str) -> Alert:
    """One of the recent alerts.

    Raises:
        NotFound: it is none of them.
    """
    for alert in monitor.recent_alerts:
        if alert.name == name:
            return alert
    raise NotFound("alert", name, field="alert")


def model_of(monitor: Monitor, version: str) -> str:
    """Resource name of the model a version belongs to: the monitor's, or that in the version's name."""
    head, separator, _ = version.partition("/versions/")
    return monitor.config.model or (head if separator else "")


def _existing(state: Monitor | None, name: str) -> Monitor:
    if state is None:
        raise NotFound("monitor", name, field="name")
    return state


def _drift_alert(
    monitor: Monitor, verdict: Verdict, findings: Sequence[Finding], context: CommandContext, *, index: int
) -> Alert | None:
    """One alert for all findings of a kind: drift of any channel, or data that is broken."""
    if not findings:
        return None
    kind = _kind_of([finding.channel for finding in findings])
    if _rests(monitor, f"alert:{AlertKind.Name(kind)}", verdict.slot):
        return None
    strongest = findings[0]
    others = len({finding.channel for finding in findings}) - 1
    more = f", and {others} more channel{'s' if others > 1 else ''}" if others else ""
    summary = (
        f"{strongest.channel} left its reference: {strongest.observed:.4g} where {strongest.reference:.4g} was"
        f" expected ({strongest.statistic} {strongest.value:.1f} over {strongest.threshold:.1f}){more}"
    )
    alert = _alert(monitor, verdict, context, kind=kind, index=index)
    alert.model_version, alert.summary = verdict.model_version, summary
    alert.findings.extend(findings[:100])
    alert.onset.CopyFrom(verdict.onset)
    return alert


def _kind_of(channels: Sequence[str]) -> AlertKind.ValueType:
    if "error" in channels:
        return resources.ALERT_KIND_CONCEPT_DRIFT
    if channels[0] == "prediction":
        return resources.ALERT_KIND_PREDICTION_DRIFT
    if channels[0].startswith(_QUALITY):
        return resources.ALERT_KIND_DATA_QUALITY
    return resources.ALERT_KIND_INPUT_DRIFT


def _retrain(monitor: Monitor, verdict: Verdict, decided: Sequence[Decided]) -> Sequence[Decided]:
    """Drift asks for training, citing its alert; broken data is no ground for training on it."""
    if monitor.config.drift_action != resources.DRIFT_ACTION_RETRAIN or _rests(monitor, "retrain", verdict.slot):
        return []
    raised = [event.alert for event in decided if isinstance(event, events.AlertRaised)]
    cited = next((each for each in (*raised, *monitor.recent_alerts) if each.kind in _DRIFTS), None)
    if cited is None:
        return []
    request = events.RetrainRequested(
        project=monitor.name.split("/")[1],
        endpoint=monitor.endpoint,
        model=model_of(monitor, verdict.model_version),
        model_version=verdict.model_version,
        alert=cited.name,
        reason=cited.summary,
    )
    request.onset.CopyFrom(verdict.onset)
    request.data_until.CopyFrom(verdict.data_until)
    return [Caused(request, by=UUID(cited.event_id))]


def _bad_version(monitor: Monitor, verdict: Verdict, context: CommandContext, *, index: int) -> Sequence[Decided]:
    version = verdict.bad_version
    if not version or _rests(monitor, f"rollback:{version}", verdict.slot):
        return []
    if _rests(monitor, f"alert:ALERT_KIND_BAD_VERSION:{version}", verdict.slot):
        return []
    finding = verdict.bad_version_finding
    alert = _alert(monitor, verdict, context, kind=resources.ALERT_KIND_BAD_VERSION, index=index)
    alert.model_version = version
    alert.summary = (
        f"{version} errs by {finding.observed:.4g} where {finding.reference:.4g} is usual:"
        f" {finding.value:.2f} times as much, and {finding.threshold:.2f} is allowed"
    )
    alert.findings.append(finding)
    alert.onset.CopyFrom(verdict.slot)
    raised = events.AlertRaised(alert=alert)
    if not monitor.config.roll_back_bad_versions:
        return [raised]
    request = events.RollbackRequested(
        project=monitor.name.split("/")[1],
        endpoint=monitor.endpoint,
        model=model_of(monitor, version),
        bad_version=version,
        alias=monitor.config.alias,
        alias_revision=verdict.alias_revision,
        alert=alert.name,
        reason=alert.summary,
    )
    return [raised, Caused(request, by=UUID(alert.event_id))]


def _alert(
    monitor: Monitor, verdict: Verdict, context: CommandContext, *, kind: AlertKind.ValueType, index: int
) -> Alert:
    project = monitor.name.split("/")[1]
    alert = Alert(
        name=f"projects/{project}/alerts/{uuid5(context.command_id, str(index))}",
        monitor=monitor.name,
        endpoint=monitor.endpoint,
        kind=kind,
        event_id=str(context.event_id(index)),
    )
    alert.slot.CopyFrom(verdict.slot)
    alert.time.FromDatetime(context.now)
    return alert


def _raise(monitor: Monitor, alert: Alert) -> None:
    kept = [alert, *monitor.recent_alerts][:MAX_RECENT_ALERTS]
    copies = [Alert.FromString(each.SerializeToString()) for each in kept]
    del monitor.recent_alerts[:]
    monitor.recent_alerts.extend(copies)
    about = f":{alert.model_version}" if alert.kind == resources.ALERT_KIND_BAD_VERSION else ""
    _rest(monitor, f"alert:{AlertKind.Name(alert.kind)}{about}", alert.slot)


def _rests(monitor: Monitor, action: str, at: Timestamp) -> bool:
    return any(
        each.action == action and at.ToMicroseconds() < each.until.ToMicroseconds() for each in monitor.cooldowns
    )


def _rest(monitor: Monitor, action: str, since: Timestamp) -> None:
    until = since.ToMicroseconds() + monitor.config.cooldown_s * 1_000_000
    for each in monitor.cooldowns:
        if each.action == action:
            each.until.FromMicroseconds(until)
            return
    # What rests no longer is forgotten, so that the list stays short.
    others = [each for each in monitor.cooldowns if each.until.ToMicroseconds() >= since.ToMicroseconds()]
    kept = [resources.Cooldown.FromString(each.SerializeToString()) for each in others]
    del monitor.cooldowns[:]
    monitor.cooldowns.extend(kept)
    monitor.cooldowns.add(action=action).until.FromMicroseconds(until)
