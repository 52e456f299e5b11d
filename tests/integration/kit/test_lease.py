"""Leases: one leader at a time, and epochs that outlive the belief to lead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from headrace_kit.errors import Deposed, FailedPrecondition, ResourceExhausted
from headrace_kit.lease import Fence, Leadership, check_fence
from headrace_kit.postgres import Database
from headrace_local.testing import FreshDatabase
from tests.support.kit import pooled, prepare, until


@pytest.fixture
async def pool(database: FreshDatabase) -> AsyncIterator[Database]:
    await prepare(database)
    async with pooled(database) as opened:
        yield opened


async def test_one_leads_until_its_lease_ends(pool: Database) -> None:
    first, second = Leadership(pool, "x", ttl_s=60), Leadership(pool, "x", ttl_s=60)

    assert await first.take() == Fence("x", 1)
    assert await second.take() is None
    await first.renew()
    await first.give_up()
    assert await second.take() == Fence("x", 2)
    with pytest.raises(Deposed):
        await first.renew()


async def test_each_taking_is_a_new_epoch_and_ends_the_one_before(pool: Database) -> None:
    leadership = Leadership(pool, "x", ttl_s=60)
    old, new = await leadership.take(), await leadership.take()
    assert old is not None
    assert new is not None
    assert new == Fence("x", old.epoch + 1)

    async with pool.transaction() as connection:
        await check_fence(connection, new)
        with pytest.raises(Deposed):
            await check_fence(connection, old)


async def test_leases_of_other_names_do_not_meet(pool: Database) -> None:
    assert await Leadership(pool, "x", ttl_s=60).take() == Fence("x", 1)
    assert await Leadership(pool, "y", ttl_s=60).take() == Fence("y", 1)


async def test_work_is_ended_when_the_lease_is_lost_and_begun_anew_with_the_next(pool: Database) -> None:
    epochs: list[int] = []
    ended: list[int] = []

    async def work(fence: Fence) -> None:
        epochs.append(fence.epoch)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(fence.epoch)

    running = asyncio.create_task(Leadership(pool, "x", ttl_s=0.5).run(work))

    async def led(times: int) -> bool:
        return len(epochs) == times

    await until(lambda: led(1))
    await pool.execute("UPDATE leases SET epoch = epoch + 1, holder = 'rival', expires_at = clock_timestamp()")
    await until(lambda: led(2))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert (epochs, ended) == ([1, 3], [1, 3])


async def test_after_an_outage_it_campaigns_again_and_a_fault_goes_to_the_caller(pool: Database) -> None:
    failures = [ResourceExhausted("the disk is full"), FailedPrecondition("broken")]

    async def work(_fence: Fence) -> None:
        raise failures.pop(0)

    with pytest.raises(FailedPrecondition):
        await asyncio.wait_for(Leadership(pool, "x", ttl_s=0.5).run(work), 10)

    assert failures == []
