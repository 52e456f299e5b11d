"""Events as CloudEvents 1.0: attributes, and the JSON of the structured mode."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.audit.v1.resources_pb2 import LogEntry

CONTENT_TYPE: Final = "application/protobuf"


def rfc3339(stamp: Timestamp) -> str:
    """A moment in UTC, to the microsecond."""
    return stamp.ToDatetime(tzinfo=UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def attributes(entry: LogEntry) -> dict[str, str]:
    """The attributes of an event, as the platform's own topics have them; empty ones are left out."""
    meta = entry.meta
    values = {
        "specversion": "1.0",
        "id": entry.event_id,
        "type": entry.type,
        "source": entry.source,
        "subject": entry.stream_id,
        "time": rfc3339(entry.occurred_at),
        "sequence": str(entry.version),
        "position": str(entry.position),
        "hlc": str(entry.hlc),
        "project": meta.project,
        "actor": meta.actor,
        "onbehalfof": meta.on_behalf_of,
        "causationid": meta.causation_id,
        "correlationid": meta.correlation_id,
        "traceparent": meta.traceparent,
    }
    return {name: value for name, value in values.items() if value}


def structured(entry: LogEntry) -> dict[str, str]:
    """The JSON object of the structured mode: the protobuf message is in ``data_base64``."""
    return {
        **attributes(entry),
        "datacontenttype": CONTENT_TYPE,
        "data_base64": b64encode(entry.data).decode("ascii"),
    }
