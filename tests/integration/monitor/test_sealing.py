"""Windows and the log say the same: seals follow each other without a gap, and anybody can compute them again."""

from __future__ import annotations

import hashlib
import struct
from datetime import UTC, datetime, timedelta

from headrace.api.monitor.v1.events_pb2 import WindowsSealed
from headrace.api.monitor.v1.resources_pb2 import Monitor
from headrace_kit.postgres import connected
from headrace_local.testing import FreshDatabase
from headrace_monitor.sealing import Sealer
from headrace_monitor.slots import decode_cells
from headrace_monitor.store import MONITOR
from headrace_monitor.windowstore import WindowStore
from tests.integration.monitor.test_deciding import NEXT_VERSION, Rig, rig_on
from tests.support.telemetry import HOUR_US, hourly

HOUR = timedelta(hours=1)


class Clock:
    """A clock the test moves."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


async def state(rig: Rig) -> Monitor:
    loaded = await rig.store.load(MONITOR, rig.world.monitor)
    assert loaded is not None
    return loaded[0]


async def endpoint_id(rig: Rig) -> int:
    found = await WindowStore(rig.database).endpoint_id(rig.world.project, rig.world.endpoint)
    assert found is not None
    return found


async def recomputed(rig: Rig, seal: WindowsSealed) -> tuple[int, bytes]:
    """Count and digest of a seal's range, straight from the table, by what the proto says."""
    rows = await rig.database.fetch(
        "SELECT w.*, v.name FROM windows w JOIN watched_versions v ON v.id = w.version_id"
        ' WHERE start_us >= $1 AND start_us < $2 ORDER BY start_us, v.name COLLATE "C"',
        getattr(seal, "from").ToMicroseconds(),
        seal.until.ToMicroseconds(),
    )
    data = b""
    for row in rows:
        numbers = [str(int(row[name])) for name in ("rows", "labels", "correct", "error_sum", "error_square")]
        cells = decode_cells(row["cells"]).tolist()
        parts = [row["name"].encode(), *(each.encode() for each in numbers), struct.pack(f"<{len(cells)}q", *cells)]
        data += struct.pack("<q", row["start_us"]) + b"".join(struct.pack("<I", len(each)) + each for each in parts)
    return len(rows), hashlib.sha256(data).digest()


async def test_what_was_closed_since_the_last_seal_is_sealed_once(database: FreshDatabase) -> None:
    async with rig_on(database, hourly(lateness_s=3600)) as rig:
        clock = Clock()
        sealer = Sealer(rig.store, WindowStore(rig.database), every=HOUR, clock=clock)
        await rig.hours(3, 20)
        await rig.hours(20, 10, version=NEXT_VERSION)
        await rig.decider().step()
        early = await sealer.seal(await state(rig), await endpoint_id(rig))
        clock.now += HOUR + timedelta(seconds=5)
        stale = await state(rig)

        assert await sealer.seal(stale, await endpoint_id(rig))
        again = await sealer.seal(await state(rig), await endpoint_id(rig))
        await rig.hours(30, 12)
        await rig.decider().step()
        await sealer.seal(stale, await endpoint_id(rig))  # another decider, which has not heard of the first seal
        clock.now += HOUR
        await sealer.seal(await state(rig), await endpoint_id(rig))
        clock.now += HOUR
        idle = await sealer.seal(await state(rig), await endpoint_id(rig))

        seals = await rig.emitted(WindowsSealed)
        assert (early, again, idle) == (False, False, False)
        assert [(each.count, each.sha256) for each in seals] == [await recomputed(rig, each) for each in seals]
        assert getattr(seals[0], "from").ToMicroseconds() == 3 * HOUR_US
        assert getattr(seals[1], "from") == seals[0].until
        assert len(seals) == 2
        assert sum(each.count for each in seals) == await rig.database.fetchval("SELECT count(*) FROM windows")


async def test_a_window_changed_after_the_fact_shows(database: FreshDatabase) -> None:
    async with rig_on(database, hourly(lateness_s=3600)) as rig:
        clock = Clock()
        clock.now += 2 * HOUR
        await rig.hours(0, 10)
        await rig.decider().step()
        await Sealer(rig.store, WindowStore(rig.database), every=HOUR, clock=clock).seal(
            await state(rig), await endpoint_id(rig)
        )
        (seal,) = await rig.emitted(WindowsSealed)

        async with connected(database.migration_dsn) as owner:
            await owner.execute("UPDATE windows SET labels = labels - 1 WHERE start_us = $1", 4 * HOUR_US)

        assert (await recomputed(rig, seal))[0] == seal.count
        assert (await recomputed(rig, seal))[1] != seal.sha256
