"""What the quarantine topic is told of a telemetry record that cannot be read."""

from __future__ import annotations

import base64
import json

from headrace_monitor.counting import Poison

_MAX_VALUE = 256 * 1024


def quarantine_notice(poison: Poison) -> bytes:
    """JSON: where the record lies, why it cannot be read, and its bytes (the first 256 KiB) in base64."""
    record = poison.record
    return json.dumps(
        {
            "consumer": "monitor.telemetry",
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "reason": poison.reason,
            "field": poison.field,
            "value": base64.b64encode(record.value[:_MAX_VALUE]).decode(),
        }
    ).encode()
