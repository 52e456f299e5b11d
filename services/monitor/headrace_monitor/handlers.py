"""What the monitor notes of the registry's events: versions with their references, and where aliases point."""

from __future__ import annotations

from headrace.api.registry.v1 import events_pb2 as registry
from headrace_kit.consumer import ReceivedEvent
from headrace_kit.postgres import Connection


async def note_version(event: ReceivedEvent, connection: Connection) -> None:
    """A version, and the profile of its training data."""
    message = event.message
    if not isinstance(message, registry.VersionCreated):
        return
    version = message.version
    profile = version.reference_profile.SerializeToString() if version.HasField("reference_profile") else None
    await connection.execute(
        "INSERT INTO versions (name, model, reference_profile) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
        version.name,
        message.model,
        profile,
    )


async def note_alias(event: ReceivedEvent, connection: Connection) -> None:
    """Where an alias points since; older revisions are passed over."""
    message = event.message
    if not isinstance(message, registry.VersionPromoted | registry.VersionRolledBack):
        return
    model = message.version.partition("/versions/")[0]
    move = message.promotion
    previous = f"{model}/versions/{move.previous_version}" if move.previous_version else ""
    await connection.execute(
        "INSERT INTO aliases AS a (model, alias, version, previous_version, revision) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (model, alias) DO UPDATE SET version = excluded.version,"
        " previous_version = excluded.previous_version, revision = excluded.revision"
        " WHERE a.revision < excluded.revision",
        model,
        move.alias,
        message.version,
        previous,
        move.revision,
    )
