"""The tables of webhooks: where they lead, with which secret, and how far each delivery is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid5

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1.resources_pb2 import Webhook, WebhookDelivery
from headrace_kit.postgres import Connection, Database, Record
from headrace_registry.webhooks import WEBHOOKS

PENDING: Final = resources.WEBHOOK_DELIVERY_STATE_PENDING
DELIVERED: Final = resources.WEBHOOK_DELIVERY_STATE_DELIVERED
DEAD: Final = resources.WEBHOOK_DELIVERY_STATE_DEAD
SECRET_OVERLAP: Final = timedelta(days=1)
"""How long a secret that was replaced signs beside its successor."""
KEEP_DELIVERED: Final = timedelta(days=7)
KEEP_DEAD: Final = timedelta(days=90)
CHUNK: Final = 1000

# A share for each webhook, so that a slow target does not hold up the others. A time that lies further away than any
# pause or lease is what a clock left that was set back since.
_CLAIM: Final = """
WITH due AS (
    SELECT d.id FROM webhooks w CROSS JOIN LATERAL (
        SELECT id, next_at FROM webhook_deliveries
        WHERE webhook = w.name AND state = 1 AND (next_at <= clock_timestamp() OR next_at > clock_timestamp() + $4)
        ORDER BY next_at, position, part LIMIT $2 FOR UPDATE SKIP LOCKED
    ) d
    WHERE w.active AND w.name <> ALL($5) ORDER BY d.next_at LIMIT $1
)
UPDATE webhook_deliveries d SET next_at = clock_timestamp() + $3, attempts = d.attempts + 1
FROM due, webhook_targets t, streams s
WHERE d.id = due.id AND t.name = d.webhook AND s.stream_id = d.webhook
RETURNING d.id, d.position, d.part, d.attempts, d.model_name, t.url, t.secret, s.state,
    CASE WHEN t.previous_until > clock_timestamp() THEN t.previous_secret ELSE '' END AS previous_secret
"""
_DONE: Final = """
UPDATE webhook_deliveries SET state = $3::smallint, response_status = $4, error = $5, next_at = clock_timestamp() + $6,
    done_at = CASE WHEN $3::smallint = 1 THEN NULL ELSE clock_timestamp() END
WHERE id = $1 AND attempts = $2 AND state = 1
"""
_FORGET: Final = """
DELETE FROM webhook_deliveries WHERE id IN (
    SELECT id FROM webhook_deliveries WHERE state <> 1 AND done_at < clock_timestamp() - $1::interval
        AND (state = 2 OR done_at < clock_timestamp() - $2::interval) LIMIT $3)
"""
_ORPHANS: Final = """
DELETE FROM webhook_deliveries WHERE id IN (
    SELECT d.id FROM webhook_deliveries d LEFT JOIN webhook_targets t ON t.name = d.webhook
    WHERE d.state = 1 AND t.name IS NULL LIMIT $1)
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery whose attempt this process makes.

    Attributes:
        id: Its id.
        webhook: Whose it is.
        position: Of the event, in the registry's log.
        part: Number of the payload among those of the event.
        attempts: With this one.
        url: Where to.
        secrets: What signs it: the newest first; none for an unsigned one.
        called: What people called the model when the delivery was noted.
    """

    id: UUID
    webhook: Webhook
    position: int
    part: int
    attempts: int
    url: str
    secrets: Sequence[str]
    called: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A payload of an event that a webhook wants."""

    webhook: str
    event_id: UUID
    position: int
    part: int
    event_type: str


class WebhookStore:
    """Reads and writes the tables of webhooks. Methods raise what ``headrace_kit.postgres`` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, project: str, *, after: str, limit: int) -> list[Webhook]:
        """At most ``limit`` webhooks of a project, by name, after the name ``after``."""
        rows = await self._database.fetch(
            "SELECT s.state, t.url FROM webhooks w JOIN streams s ON s.stream_id = w.name"
            " JOIN webhook_targets t USING (name)"
            " WHERE w.project = $1 AND NOT w.deleted AND w.name > $2 ORDER BY w.name LIMIT $3",
            project,
            after,
            limit,
        )
        return [_webhook(row["state"], row["url"]) for row in rows]

    async def target(self, name: str) -> tuple[str, Sequence[str]] | None:
        """URL and secrets of a webhook, the newest first; None when it was deleted."""
        row = await self._database.fetchrow(
            "SELECT url, secret, CASE WHEN previous_until > clock_timestamp() THEN previous_secret ELSE '' END"
            " AS previous_secret FROM webhook_targets WHERE name = $1",
            name,
        )
        return None if row is None else (row["url"], _secrets(row))

    @staticmethod
    async def add_target(connection: Connection, name: str, *, url: str, secret: str) -> None:
        """Keeps where a new webhook leads."""
        await connection.execute(
            "INSERT INTO webhook_targets (name, url, secret) VALUES ($1, $2, $3)", name, url, secret
        )

    @staticmethod
    async def change_target(connection: Connection, name: str, *, url: str, secret: str) -> None:
        """Keeps another URL, and another secret beside the one before; empty for no change."""
        if url:
            await connection.execute("UPDATE webhook_targets SET url = $2 WHERE name = $1", name, url)
        if secret:
            await connection.execute(
                "UPDATE webhook_targets SET previous_secret = secret, secret = $2,"
                " previous_until = clock_timestamp() + $3 WHERE name = $1",
                name,
                secret,
                SECRET_OVERLAP,
            )

    @staticmethod
    async def forget(connection: Connection, name: str) -> None:
        """Deletes where a webhook leads, and its deliveries."""
        await connection.execute("DELETE FROM webhook_targets WHERE name = $1", name)
        await connection.execute("DELETE FROM webhook_deliveries WHERE webhook = $1", name)

    @staticmethod
    async def listeners(connection: Connection, project: str, *, since: datetime) -> list[Webhook]:
        """The webhooks of a project that are told of an event of that time: active ones that were there by then."""
        rows = await connection.fetch(
            "SELECT s.state FROM webhooks w JOIN streams s ON s.stream_id = w.name"
            " WHERE w.project = $1 AND w.active AND w.create_time <= $2 ORDER BY w.name",
            project,
            since,
        )
        return [Webhook.FromString(row["state"]) for row in rows]

    @staticmethod
    async def add(connection: Connection, project: str, wanted: Iterable[Wanted], *, called: str) -> None:
        """Makes payloads of an event on the model ``called`` so due; those that are there already stay as they are."""
        await connection.executemany(
            "INSERT INTO webhook_deliveries"
            " (id, project, webhook, event_id, position, part, event_type, model_name, state, next_at, created_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, clock_timestamp(), clock_timestamp()) ON CONFLICT DO NOTHING",
            [
                (
                    uuid5(WEBHOOKS, f"{each.webhook} {each.event_id} {each.part}"),
                    project,
                    each.webhook,
                    each.event_id,
                    each.position,
                    each.part,
                    each.event_type,
                    called,
                )
                for each in wanted
            ],
        )

    async def claim(
        self, limit: int, *, each: int, lease: timedelta, furthest: timedelta, busy: Collection[str]
    ) -> list[Claimed]:
        """Takes due deliveries for this process; another gets them when ``lease`` is over and they are not done.

        Args:
            limit: Most deliveries.
            each: Most of one webhook.
            lease: How long an attempt may take.
            furthest: No delivery is due later than this from now.
            busy: Webhooks that are to get nothing now.
        """
        rows = await self._database.fetch(_CLAIM, limit, each, lease, furthest, list(busy))
        return [
            Claimed(
                id=row["id"],
                webhook=Webhook.FromString(row["state"]),
                position=row["position"],
                part=row["part"],
                attempts=row["attempts"],
                url=row["url"],
                secrets=_secrets(row),
                called=row["model_name"],
            )
            for row in rows
        ]

    async def finish(
        self, claimed: Claimed, state: int, *, status: int, error: str, after: timedelta = timedelta()
    ) -> bool:
        """Notes what came of an attempt; False when another process has taken the delivery since.

        Args:
            claimed: As it was taken.
            state: Delivered, dead, or pending again.
            status: Of the answer; 0 for none.
            error: Why it failed.
            after: When it is due again.
        """
        done = (claimed.id, claimed.attempts, state, status, error, after)
        return bool(await self._database.execute(_DONE, *done))

    async def deliveries(
        self, project: str, *, webhook: str, state: int, after: tuple[int, UUID] | None, limit: int
    ) -> list[WebhookDelivery]:
        """At most ``limit`` deliveries, newest event first, after that position and id.

        Args:
            project: Id of the project.
            webhook: Only those of this one; empty for all.
            state: Only those in this state; 0 for all.
            after: Position and id of the last one before.
            limit: Most deliveries.
        """
        position, id_ = after or (1 << 62, UUID(int=0))
        rows = await self._database.fetch(
            "SELECT * FROM webhook_deliveries WHERE project = $1 AND ($2 = '' OR webhook = $2)"
            " AND ($3 = 0 OR state = $3) AND (position, id) < ($4, $5) ORDER BY position DESC, id DESC LIMIT $6",
            project,
            webhook,
            state,
            position,
            id_,
            limit,
        )
        return [_delivery(row) for row in rows]

    async def delivery(self, id_: UUID) -> WebhookDelivery | None:
        """A delivery, or None."""
        row = await self._database.fetchrow("SELECT * FROM webhook_deliveries WHERE id = $1", id_)
        return None if row is None else _delivery(row)

    async def redrive(self, id_: UUID) -> None:
        """Makes a dead letter due, with all its attempts; any other stays as it is."""
        await self._database.execute(
            "UPDATE webhook_deliveries SET state = 1, attempts = 0, next_at = clock_timestamp(), done_at = NULL"
            " WHERE id = $1 AND state = 3",
            id_,
        )

    async def forget_old(self) -> int:
        """Deletes a chunk of what is kept no longer; returns its size."""
        old = await self._database.execute(_FORGET, KEEP_DELIVERED, KEEP_DEAD, CHUNK)
        return old + await self._database.execute(_ORPHANS, CHUNK)


def _secrets(row: Record) -> Sequence[str]:
    return [each for each in (row["secret"], row["previous_secret"]) if each]


def _webhook(state: bytes, url: str) -> Webhook:
    found = Webhook.FromString(state)
    found.url = url
    return found


def _delivery(row: Mapping[str, Any] | Record) -> WebhookDelivery:  # Any: as of a record
    found = WebhookDelivery(
        id=str(row["id"]),
        webhook=row["webhook"],
        event_id=str(row["event_id"]),
        position=row["position"],
        event_type=row["event_type"],
        state=row["state"],
        attempts=row["attempts"],
        response_status=row["response_status"],
        error=row["error"],
        create_time=_stamp(row["created_at"]),
    )
    if row["state"] == PENDING:
        found.next_time.CopyFrom(_stamp(row["next_at"]))
    if row["done_at"] is not None:
        found.done_time.CopyFrom(_stamp(row["done_at"]))
    return found


def _stamp(moment: datetime) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(moment.astimezone(UTC))
    return time
