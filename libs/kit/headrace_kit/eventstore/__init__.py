"""The event store: every fact a service owns goes through ``execute``.

A command looks its id up, loads the stream, decides, and appends in one statement whose events are selected from the
insertion of the command: a concurrent repeat inserts nothing and is answered with the stored response.
"""

from headrace_kit.decided import Caused, Decided
from headrace_kit.eventstore.aggregate import Aggregate, Row, no_rows
from headrace_kit.eventstore.memory import MemoryEventStore
from headrace_kit.eventstore.postgres import PostgresEventStore, Within
from headrace_kit.eventstore.protocol import EventStore
from headrace_kit.eventstore.stored import EventMeta, LogEntry, StoredEvent, project_of
from headrace_kit.lease import Fence

__all__ = [
    "Aggregate",
    "Caused",
    "Decided",
    "EventMeta",
    "EventStore",
    "Fence",
    "LogEntry",
    "MemoryEventStore",
    "PostgresEventStore",
    "Row",
    "StoredEvent",
    "Within",
    "no_rows",
    "project_of",
]
