"""Metric points as bytes, soon: a training step waits for them.

A message of protobuf is its fields one after the other, in any order. So a key is encoded once, step and time once for
all metrics of a step, and a point is put together of these and of its value.
"""

import struct
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.tracking.v1.resources_pb2 import MetricPoint
from headrace.api.tracking.v1.service_pb2 import LogMetricsRequest

MAX_KEY_LENGTH: Final = 250
MAX_KNOWN_KEYS: Final = 10_000
_VALUE: Final = struct.Struct("<Bd")
_VALUE_TAG: Final = MetricPoint.VALUE_FIELD_NUMBER << 3 | 1
_POINT_TAG: Final = LogMetricsRequest.POINTS_FIELD_NUMBER << 3 | 2
_MORE: Final = 0x80


class PointEncoder:
    """Encodes points, each as a ``LogMetricsRequest`` with it alone; one after the other they are one with all."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}

    def when(self, step: int, time_ns: int) -> bytes:
        """Step and time, for ``point``. Raises ValueError when a step has more than 64 bits."""
        seconds, nanos = divmod(time_ns, 1_000_000_000)
        return MetricPoint(step=step, time=Timestamp(seconds=seconds, nanos=nanos)).SerializeToString()

    def point(self, key: str, value: float, when: bytes) -> bytes:
        """A point. Raises ValueError for a key that is too long or empty."""
        fields = (self._keys.get(key) or self._known(key)) + _VALUE.pack(_VALUE_TAG, value) + when
        size = len(fields)
        if size < _MORE:
            return bytes((_POINT_TAG, size)) + fields
        return bytes((_POINT_TAG, size & (_MORE - 1) | _MORE, size >> 7)) + fields

    def _known(self, key: str) -> bytes:
        if len(self._keys) >= MAX_KNOWN_KEYS:
            self._keys.clear()
        found = self._keys[key] = MetricPoint(key=checked_key(key)).SerializeToString()
        return found


def checked_key(key: str) -> str:
    """The key of a metric, a parameter or a tag. Raises ValueError."""
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise ValueError(f"a key is a text of 1 to {MAX_KEY_LENGTH} characters, not {key!r}")
    return key
