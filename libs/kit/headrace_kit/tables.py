"""What every table of a database is: truth, a read model, a cache, or a place where someone stands.

Each service declares its own tables beside its stores; a test holds that no table of any migration is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What losing a table would mean."""

    TRUTH = "truth"
    """Lost for good."""
    READ_MODEL = "read model"
    """Folded from events: ``headrace log rebuild`` makes the same bytes again."""
    CACHE = "cache"
    """May be emptied at any time; filled again by use."""
    PROGRESS = "progress"
    """Where a process stands, and who may write."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its name, its kind, and in a few words what it holds."""

    name: str
    kind: Kind
    holds: str


KIT_TABLES: Final = (
    Table("events", Kind.TRUTH, "every fact of the service, append-only"),
    Table("commands", Kind.TRUTH, "ids of commands for ever, their answers for 30 days"),
    Table("log_entries", Kind.TRUTH, "position, time and leaf of each event, append-only"),
    Table("merkle_nodes", Kind.TRUTH, "roots of complete subtrees over the leaves, append-only"),
    Table("checkpoints", Kind.TRUTH, "signed checkpoints of the log, append-only"),
    Table("checkpoint_keys", Kind.TRUTH, "public keys that signed them, append-only"),
    Table("checkpoint_marks", Kind.PROGRESS, "the last checkpoint each place outside is known to have"),
    Table("causes_filled", Kind.PROGRESS, "up to where events have their causes in a column of their own"),
    Table("streams", Kind.READ_MODEL, "the folded state of each stream"),
    Table("snapshots", Kind.CACHE, "folded states of long streams at some versions"),
    Table("read_models", Kind.PROGRESS, "the revision of the code that folded each kind of stream"),
    Table("leases", Kind.PROGRESS, "who writes, and the epoch that fences"),
    Table("sequencer_state", Kind.PROGRESS, "what the sequencer takes next"),
    Table("relay_state", Kind.PROGRESS, "the last position in Kafka"),
    Table("consumer_offsets", Kind.PROGRESS, "where each consumer resumes in Kafka"),
    Table("consumer_positions", Kind.PROGRESS, "the last position a consumer or projection took"),
    Table("consumer_streams", Kind.PROGRESS, "the last version a consumer took of each stream"),
    Table("parked_streams", Kind.PROGRESS, "streams that wait for a redrive"),
    Table("parked_events", Kind.PROGRESS, "their events, in order"),
    Table("schema_migrations", Kind.PROGRESS, "which migrations were applied"),
)
"""The tables that every service's database has."""
