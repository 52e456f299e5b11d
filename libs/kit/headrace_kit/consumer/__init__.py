"""Consumers of other services' events.

Offsets only say where to resume. Exactly-once effects come from identity: a handler's command id derives from the id
of the event, a projection commits with its offset, and what was seen of a stream is dropped when it comes again.
Offsets move by compare-and-set, so a member that slept through a rebalance rolls back and gives its partition up.
"""

from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.consumer.delivery import Handler, ProjectionHandler
from headrace_kit.consumer.lane import Counters
from headrace_kit.consumer.offsets import PartitionLost
from headrace_kit.consumer.parking import ParkedEvent, ParkedKey, list_parked
from headrace_kit.consumer.reading import LogReader, StoreLogReader
from headrace_kit.consumer.redriving import Redriven
from headrace_kit.consumer.running import Consumer, ProjectionConsumer
from headrace_kit.consumer.status import ConsumerStatus, PartitionStatus, list_consumers

__all__ = [
    "Consumer",
    "ConsumerStatus",
    "Counters",
    "Handler",
    "LogReader",
    "ParkedEvent",
    "ParkedKey",
    "PartitionLost",
    "PartitionStatus",
    "ProjectionConsumer",
    "ProjectionHandler",
    "ReceivedEvent",
    "Redriven",
    "StoreLogReader",
    "list_consumers",
    "list_parked",
]
