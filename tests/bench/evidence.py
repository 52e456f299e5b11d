"""The log as evidence: how fast it is verified, how fast its tree is made, how large a proof is."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.queues import Queue
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from uuid import UUID

from headrace.api.audit.v1.service_pb2_grpc import add_AuditServiceServicer_to_server
from headrace.client import Client
from headrace.connection import Connection
from headrace.evidence import prove, verify_log
from headrace.export import Format, LogRange, export_logs, resolve
from headrace.verifier import Key
from headrace_kit.audit import AuditServicer
from headrace_kit.context import CommandContext
from headrace_kit.eventstore import EventMeta, PostgresEventStore
from headrace_kit.lease import Leadership
from headrace_kit.log import MemoryLog
from headrace_kit.logkeeper import LogKeeper
from headrace_kit.logs import configure_logs
from headrace_kit.notary import Notary, Signer
from headrace_kit.postgres import connected, create_pool, migrate
from headrace_kit.sequencer import Sequencer
from headrace_kit.testing import OPERATOR_CALLER, serving
from headrace_local.testing import FreshDatabase, run_infrastructure
from tests.bench.figures import Figure
from tests.support.counters import NOW, SOURCE, TYPES
from tests.support.platform import Platform

EVENTS: Final = 1 << 20
PROOFS: Final = 100
_META: Final = EventMeta.of(
    CommandContext(command_id=UUID(int=1), actor="persons/operator", now=NOW), "projects/p/counters/c"
).encode()
_FILL: Final = """
INSERT INTO events (stream_id, version, event_id, type, occurred_at, hlc, meta, data)
SELECT 'projects/p/counters/' || n % 1000, n / 1000 + 1, gen_random_uuid(), 'google.protobuf.Int64Value', now(), n, $3,
       '\\x0801'::bytea
FROM generate_series($1::bigint, $2::bigint) AS n
"""


def measure(platform: Platform, *, quick: bool) -> Iterator[Figure]:
    """On a log of its own, beside the platform."""
    del platform
    count = EVENTS // 16 if quick else EVENTS
    context = multiprocessing.get_context("spawn")
    with run_infrastructure() as infrastructure, infrastructure.database() as fresh, TemporaryDirectory() as folder:
        asyncio.run(_fill(fresh, count))
        told: Queue[tuple[str, str, float]] = context.Queue()
        server = context.Process(target=_serve, args=(fresh, Path(folder) / "key", told), daemon=True)
        server.start()
        try:
            address, key, grown_s = told.get(timeout=600)
            yield Figure(f"Merkle tree over {count:,} events made", f"{count / grown_s:,.0f}/s", "", "reading leaves")
            yield from _verified(address, Key.parse(key), count)
        finally:
            server.kill()
            server.join()


def _verified(address: str, key: Key, count: int) -> Iterator[Figure]:
    with Client(Connection(addresses={"registry": address}, token=OPERATOR_CALLER.token)) as client:
        [wanted] = resolve(client, ["registry"])
        began, worked = time.perf_counter(), time.process_time()
        verdict = verify_log(client, wanted, keys=[key])
        taken, worked = time.perf_counter() - began, time.process_time() - worked
        if not verdict.sound or verdict.entries != count:
            raise AssertionError(verdict)
        yield Figure("events verified by one core", f"{count / worked:,.0f}/s", "200,000/s", "SHA-256 in Python")
        yield Figure(
            "events verified, end to end", f"{count / taken:,.0f}/s", "", "PostgreSQL puts the leaves together"
        )
        yield _exported(client, wanted, count)
        proof = prove(client, f"registry:{count // 3}")
        size = 32 * len(proof.path) + len(proof.checkpoint.note.encode())
        yield Figure(f"proof among {count:,} events, with its checkpoint", f"{size} bytes", "1 KB")
        began = time.perf_counter()
        for number in range(PROOFS):
            prove(client, f"registry:{1 + number * (count // PROOFS)}")
        yield Figure("one such proof", f"{(time.perf_counter() - began) / PROOFS * 1000:.1f} ms")


def _exported(client: Client, wanted: LogRange, count: int) -> Figure:
    with TemporaryDirectory() as folder:
        began, worked = time.perf_counter(), time.process_time()
        [file] = export_logs(client, [wanted], Path(folder) / "export", kind=Format.PARQUET)
        taken, worked = time.perf_counter() - began, time.process_time() - worked
    if file.count != count:
        raise AssertionError(file)
    value = f"{count / taken:,.0f}/s ({count / worked:,.0f}/s a core of the client's)"
    return Figure("events exported to Parquet, end to end", value, "200,000/s", "PostgreSQL puts the leaves together")


async def _fill(fresh: FreshDatabase, count: int) -> None:
    """A sequenced log: events straight into the table, positions and leaves by the sequencer."""
    await migrate(fresh.migration_dsn, service_dsn=fresh.service_dsn)
    async with connected(fresh.migration_dsn) as connection:
        for first in range(0, count, 1 << 16):
            await connection.execute(_FILL, first, min(first + (1 << 16), count) - 1, _META)
    database = await create_pool(fresh.service_dsn)
    fence = await Leadership(database, "log", ttl_s=3600).take()
    if fence is None:
        raise AssertionError("a new database has no leader")
    sequencer = Sequencer(database, SOURCE, batch=5000)
    while await sequencer.step(fence) or sequencer.tail_age_s:
        pass
    await database.execute("UPDATE leases SET expires_at = clock_timestamp()")
    await database.close()
    async with connected(fresh.migration_dsn) as connection:
        await connection.execute("VACUUM ANALYZE events, log_entries")


def _serve(fresh: FreshDatabase, key: Path, told: Queue[tuple[str, str, float]]) -> None:
    """A process of its own, as a service is: makes the tree, signs it, and serves it until it is killed."""

    async def work() -> None:
        database = await create_pool(fresh.service_dsn)
        store = PostgresEventStore(database, SOURCE, TYPES)
        keeper = LogKeeper(store, MemoryLog(), ttl_s=3600)
        while (fence := await keeper.leadership.take()) is None:
            await asyncio.sleep(0.01)
        signer = Signer.load_or_make(SOURCE, key)
        notary = Notary(database, signer, every_s=0.0)
        began = time.perf_counter()
        while await notary.step(fence):
            pass
        grown_s = time.perf_counter() - began
        servicer = AuditServicer(store, keeper, {})
        async with serving([(add_AuditServiceServicer_to_server, servicer)]) as running:
            told.put((running.address, str(signer.key), grown_s))
            await asyncio.Event().wait()

    configure_logs("bench", "error")
    asyncio.run(work())


if __name__ == "__main__":
    for figure in measure(None, quick=False):  # type: ignore[arg-type]  # it needs no platform
        print(f"{figure.what}: {figure.value}", flush=True)
