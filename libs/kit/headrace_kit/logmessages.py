"""Entries of a log as messages of ``headrace.api.audit.v1``, and back."""

from __future__ import annotations

from datetime import UTC
from uuid import UUID

from headrace.api.audit.v1 import resources_pb2 as resources
from headrace.api.audit.v1 import service_pb2 as service
from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.consumer import ConsumerStatus
from headrace_kit.eventstore import EventMeta, LogEntry, StoredEvent, project_of


def entry_message(entry: LogEntry) -> resources.LogEntry:
    """A log entry as it is served."""
    message = event_message(entry.event, entry.source)
    message.position = entry.position
    message.sequenced_at.FromDatetime(entry.sequenced_at)
    message.leaf = entry.leaf
    return message


def received_message(event: ReceivedEvent) -> resources.LogEntry:
    """An event from Kafka as it is served."""
    message = resources.LogEntry(
        source=event.source,
        position=event.position,
        event_id=str(event.id),
        stream_id=event.subject,
        version=event.sequence,
        type=event.type,
        hlc=event.hlc,
        data=event.data,
        meta=resources.EventMeta(
            actor=event.actor,
            on_behalf_of=event.on_behalf_of,
            causation_id=str(event.causation_id or ""),
            correlation_id=str(event.correlation_id or ""),
            traceparent=event.traceparent,
            project=event.project,
        ),
    )
    message.occurred_at.FromDatetime(event.time)
    return message


def event_message(event: StoredEvent, source: str) -> resources.LogEntry:
    """An event as it is served, without a place in the log."""
    message = resources.LogEntry(
        source=source,
        event_id=str(event.event_id),
        stream_id=event.stream_id,
        version=event.version,
        type=event.type,
        hlc=event.hlc,
        data=event.data,
        meta=_meta(event.origin, event.stream_id),
    )
    message.occurred_at.FromDatetime(event.occurred_at)
    message.recorded_at.FromDatetime(event.recorded_at)
    return message


def _meta(meta: EventMeta, stream_id: str) -> resources.EventMeta:
    return resources.EventMeta(
        actor=meta.actor,
        on_behalf_of=meta.on_behalf_of,
        causation_id=str(meta.causation_id or ""),
        correlation_id=str(meta.correlation_id or ""),
        command_id=str(meta.command_id),
        traceparent=meta.traceparent,
        project=project_of(stream_id),
        method=meta.method,
    )


def received_event(entry: resources.LogEntry) -> ReceivedEvent:
    """What was served, as a consumer sees it."""
    meta = entry.meta
    return ReceivedEvent(
        id=UUID(entry.event_id),
        type=entry.type,
        source=entry.source,
        subject=entry.stream_id,
        time=entry.occurred_at.ToDatetime(tzinfo=UTC),
        sequence=entry.version,
        position=entry.position,
        hlc=entry.hlc,
        project=meta.project,
        actor=meta.actor,
        on_behalf_of=meta.on_behalf_of,
        causation_id=UUID(meta.causation_id) if meta.causation_id else None,
        correlation_id=UUID(meta.correlation_id) if meta.correlation_id else None,
        traceparent=meta.traceparent,
        data=entry.data,
        message=None,
    )


def consumer_message(status: ConsumerStatus) -> service.ConsumerStatus:
    """How far a consumer has come, as it is served."""
    return service.ConsumerStatus(
        consumer=status.name,
        partitions=[
            service.PartitionStatus(
                topic=each.partition.topic,
                partition=each.partition.partition,
                next_offset=each.next_offset,
                end_offset=each.end_offset,
                source=each.source,
                position=each.position,
            )
            for each in status.partitions
        ],
        parked_streams=status.parked_streams,
        parked_events=status.parked_events,
    )
