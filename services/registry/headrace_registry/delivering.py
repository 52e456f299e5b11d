"""Webhooks are told of the log: a fan-out that notes who wants which event, and a courier that brings it.

The fan-out follows the registry's own log; its place and the deliveries it notes are one transaction. The courier takes
due deliveries by a lease in the database. Killed anywhere, both go on: each payload is delivered at least once, under
the same ``webhook-id``, and not in order.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace_kit import metrics
from headrace_kit.consumer import ReceivedEvent
from headrace_kit.errors import KitError
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.postgres import Connection
from headrace_kit.projection import LogProjection
from headrace_kit.webhooks import Answer, Sender, delay_s, mlflow_headers, standard_headers
from headrace_registry import payloads
from headrace_registry.store import name_of
from headrace_registry.webhooks import ABOUT_MODELS
from headrace_registry.webhookstore import DEAD, DELIVERED, PENDING, Claimed, Wanted, WebhookStore

_log = structlog.get_logger(__name__)
FANOUT: Final = "registry.webhooks"
AT_ONCE: Final = 16
"""Attempts under way in one process."""
AT_ONCE_EACH: Final = 4
"""Of which so many may be to one webhook."""
POLL_S: Final = 0.2
GRACE_S: Final = 20.0
"""How much longer than an attempt its lease is."""
FORGET_EVERY_S: Final = 3600.0
MAX_BACKOFF_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long a delivery is tried: ``attempts`` in all, with pauses from ``base_s`` to ``most_s``."""

    attempts: int
    base_s: float
    most_s: float


def fan_out(store: PostgresEventStore) -> LogProjection:
    """Notes, for each event on models, the payloads that webhooks want of it."""
    return LogProjection(FANOUT, store, dict.fromkeys(ABOUT_MODELS, note))


async def note(event: ReceivedEvent, connection: Connection) -> None:
    """Makes an event's payloads due for the webhooks that want it, in the fan-out's transaction."""
    message = event.message
    if message is None:
        return
    wanted = [
        Wanted(webhook.name, event.id, event.position, part, kind)
        for webhook in await WebhookStore.listeners(connection, event.project, since=event.time)
        for part, kind in payloads.parts_of(message, webhook, model=event.subject)
    ]
    if wanted:
        called = await name_of(connection, event.subject)
        await WebhookStore.add(connection, event.project, wanted, called=called)


def signed(
    message_id: str, webhook: resources.Webhook, body: payloads.Body, secrets: Sequence[str], *, now: int
) -> dict[str, str]:
    """The headers of an attempt at ``now``, seconds since 1970."""
    headers = standard_headers(message_id, now, body.content, secrets)
    if webhook.payload == resources.WEBHOOK_PAYLOAD_MLFLOW:
        headers |= mlflow_headers(message_id, now, body.content, secrets)
    return {**headers, "content-type": body.media_type}


class Courier:
    """Brings due deliveries to their targets. Any number of processes may do so at once.

    Args:
        store: The registry's log.
        webhooks: The tables.
        sender: Makes attempts.
        patience: How often and how long.
        chance: Random numbers in [0, 1).
    """

    def __init__(
        self,
        store: PostgresEventStore,
        webhooks: WebhookStore,
        sender: Sender,
        patience: Patience,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store, self._webhooks, self._sender = store, webhooks, sender
        self._patience, self._chance = patience, chance
        self._lease = timedelta(seconds=sender.timeout_s + GRACE_S)
        self._furthest = timedelta(seconds=max(patience.most_s, sender.timeout_s + GRACE_S) * 2)
        self._running: dict[asyncio.Task[None], str] = {}
        self._forget_at = 0.0

    async def run(self) -> None:
        """Delivers until cancelled, through outages of the database."""
        backoff = 0.1
        try:
            while True:
                try:
                    await self.step()
                    await self._forget()
                    backoff = 0.1
                except KitError as error:
                    if not error.retryable:
                        raise
                    await asyncio.sleep(backoff)
                    backoff = min(backoff * 2, MAX_BACKOFF_S)
                else:
                    await self._pause()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def step(self) -> int:
        """Begins what is due, as far as there is room; returns how many attempts that are."""
        room = AT_ONCE - len(self._running)
        if room <= 0:
            return 0
        under_way = Counter(self._running.values())
        busy = [name for name, count in under_way.items() if count >= AT_ONCE_EACH]
        claimed = await self._webhooks.claim(
            room, each=AT_ONCE_EACH, lease=self._lease, furthest=self._furthest, busy=busy
        )
        for each in claimed:
            task = asyncio.create_task(self._deliver(each), name=f"webhook {each.id}")
            self._running[task] = each.webhook.name
            task.add_done_callback(self._ended)
        return len(claimed)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """An attempt that failed by a fault of ours: its delivery is due again when its lease ends."""
        webhook = self._running.pop(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("webhook_attempt_failed", webhook=webhook, exc_info=error)

    async def _pause(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(POLL_S)

    async def _deliver(self, claimed: Claimed) -> None:
        """One attempt. Where the database is away, the lease ends and the delivery is due again."""
        try:
            answer = await self._attempt(claimed)
            await self._note(claimed, answer)
        except KitError as error:
            _log.warning(
                "webhook_outcome_unknown", webhook=claimed.webhook.name, id=str(claimed.id), cause=error.reason
            )

    async def _attempt(self, claimed: Claimed) -> Answer:
        entries = await self._store.read_log(claimed.position, 1)
        try:
            body = payloads.body(entries[0], claimed.webhook, claimed.part, called=claimed.called)
        except LookupError as error:
            return Answer(error=f"the payload can not be made: {error}")
        headers = signed(str(claimed.id), claimed.webhook, body, claimed.secrets, now=int(time.time()))
        return await self._sender.send(claimed.url, body.content, headers)

    async def _note(self, claimed: Claimed, answer: Answer) -> None:
        after = timedelta()
        if answer.delivered:
            state, outcome = DELIVERED, "delivered"
        elif claimed.attempts >= self._patience.attempts:
            state, outcome = DEAD, "dead"
        else:
            state, outcome = PENDING, "failed"
            after = timedelta(
                seconds=delay_s(
                    claimed.attempts,
                    base_s=self._patience.base_s,
                    most_s=self._patience.most_s,
                    chance=self._chance(),
                )
            )
        metrics.WEBHOOK_ATTEMPTS.labels(outcome).inc()
        if outcome == "dead":
            _log.warning("webhook_gave_up", webhook=claimed.webhook.name, id=str(claimed.id), cause=answer.error)
        await self._webhooks.finish(claimed, state, status=answer.status, error=answer.error, after=after)

    async def _forget(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._forget_at and not await self._webhooks.forget_old():
            self._forget_at = now + FORGET_EVERY_S
