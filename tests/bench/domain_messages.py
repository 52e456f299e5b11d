"""What it costs that domain events and states are protobuf messages: ``python -m tests.bench.domain_messages``.

The figures stand in docs/decisions/0002. Each is the best of five repeats, in microseconds.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from headrace.api.registry.v1 import events_pb2, resources_pb2

_NOW = datetime(2026, 11, 24, tzinfo=UTC)
_MODEL = "projects/default/models/flights"


@dataclass(frozen=True, slots=True)
class MirroredEvent:
    """The same event as a dataclass, as it would be mapped to and from its message."""

    model: str
    description: str
    creator: str
    time: datetime

    def to_message(self) -> events_pb2.ModelCreated:
        """Map to the message that is stored."""
        message = events_pb2.ModelCreated(model=self.model, description=self.description, creator=self.creator)
        message.time.FromDatetime(self.time)
        return message

    @classmethod
    def from_message(cls, message: events_pb2.ModelCreated) -> MirroredEvent:
        """Map from the message that is stored."""
        return cls(message.model, message.description, message.creator, message.time.ToDatetime(UTC))


def mirrored() -> MirroredEvent:
    """One event, as a dataclass."""
    return MirroredEvent(_MODEL, "Arrival delay at departure", "persons/operator", _NOW)


def message() -> events_pb2.ModelCreated:
    """The same event, made as a message at once."""
    made = events_pb2.ModelCreated(model=_MODEL, description="Arrival delay at departure", creator="persons/operator")
    made.time.FromDatetime(_NOW)
    return made


def model_with(versions: int) -> resources_pb2.Model:
    """A state with so many versions, each with an artifact and eight metrics."""
    version = resources_pb2.Version(name=f"{_MODEL}/versions/1", number=1, author="persons/operator")
    version.artifact.uri = f"default/sha256/{'a' * 64}"
    version.artifact.sha256 = "a" * 64
    for index in range(8):
        version.metrics.add(name=f"metric-{index}", value=0.5)
    return resources_pb2.Model(name=_MODEL, versions=[version] * versions)


def copy_of(model: resources_pb2.Model) -> resources_pb2.Model:
    """What every ``evolve`` begins with."""
    copied = resources_pb2.Model()
    copied.CopyFrom(model)
    return copied


def microseconds(call: Callable[[], object], *, times: int) -> float:
    """The best of five means."""
    return min(timeit.repeat(call, number=times, repeat=5)) / times * 1e6


def main() -> None:
    """Print one line per figure."""
    encoded = mirrored().to_message().SerializeToString()
    rows: dict[str, Callable[[], object]] = {
        "event, make and encode: message": lambda: message().SerializeToString(),
        "event, make and encode: dataclass": lambda: mirrored().to_message().SerializeToString(),
        "event, decode: message": lambda: events_pb2.ModelCreated.FromString(encoded),
        "event, decode: dataclass": lambda: MirroredEvent.from_message(events_pb2.ModelCreated.FromString(encoded)),
    }
    for name, call in rows.items():
        print(f"{name:40} {microseconds(call, times=50_000):9.2f} us")
    for versions in (1, 10, 100, 1000):
        model = model_with(versions)
        size = model.ByteSize()
        cost = microseconds(partial(copy_of, model), times=500)
        print(f"state of {versions:4} versions, {size:7} bytes: copy {cost:9.2f} us")


if __name__ == "__main__":
    main()
