"""The scheduler with workers that say everything twice, vanish, and come back."""

from __future__ import annotations

import pytest

from headrace.api.orchestrator.v1 import events_pb2 as events
from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace_kit.errors import Deposed, FailedPrecondition
from tests.support.orchestrating import LEASE_S, Orchestration, PlayedWorker, chain, until, wide


async def test_a_completion_and_the_next_lease_are_one_append() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, _):
        await world.register(scheduler, chain(3))
        worker = PlayedWorker(scheduler, capacity=1)
        await worker.connect()
        run = await world.start(scheduler)
        for number in range(3):
            (lease,) = await worker.take()
            assert dict(lease.arguments) == ({"given": str(number - 1)} if number else {})
            await worker.complete(lease, str(number))

        found = await world.events(run)
        kinds = [type(message).__name__ for _, message in found]
        assert kinds == ["PipelineRunStarted", *["StepLeased", "StepCompleted"] * 3, "PipelineRunSucceeded"]
        for completed in (2, 4, 6):
            assert found[completed][0] == found[completed + 1][0]


async def test_no_worker_gets_more_than_it_has_places_for() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, _):
        await world.register(scheduler, wide(5))
        small, large = PlayedWorker(scheduler, capacity=1), PlayedWorker(scheduler, capacity=2)
        await small.connect()
        await large.connect()
        run = await world.start(scheduler)
        (first,) = await small.take()
        begun = await large.take(2)
        leased = [step for step in (await world.state(run)).steps if step.status == resources.STEP_STATUS_LEASED]
        assert len(leased) == 3
        await small.complete(first)
        (second,) = await small.take()
        assert second.step not in {first.step, *(each.step for each in begun)}


async def test_a_result_told_twice_is_recorded_once_and_acknowledged_each_time() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, _):
        await world.register(scheduler, chain(2))
        worker = PlayedWorker(scheduler, capacity=1)
        await worker.connect()
        run = await world.start(scheduler)
        (lease,) = await worker.take()
        await worker.report(lease)
        await worker.report(lease)
        await worker.hear(lambda: lease.token in worker.acknowledged)
        await worker.report(lease, error_class="ValueError")
        await worker.hear(lambda: worker.acknowledged.count(lease.token) == 2)
        outcomes = [each for _, each in await world.events(run) if isinstance(each, events.StepCompleted)]
        assert len(outcomes) == 1


async def test_a_silent_workers_steps_go_to_another_and_its_late_result_is_refused() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, _):
        await world.register(scheduler, chain(1))
        silent = PlayedWorker(scheduler, capacity=1)
        await silent.connect()
        run = await world.start(scheduler)
        (old,) = await silent.take()
        world.clock.advance(2 * LEASE_S)
        other = PlayedWorker(scheduler, capacity=1)
        await other.connect()
        scheduler.dispatcher.check()
        (new,) = await other.take()
        assert new.token > old.token
        assert new.attempt == 2

        back = PlayedWorker(scheduler, capacity=1, worker_id=silent.id)
        await back.connect([old.token])
        await back.hear(lambda: old.token in back.cancelled)
        await back.report(old, '"late"')
        await back.hear(lambda: old.token in back.acknowledged)
        await other.complete(new, '"in time"')
        state = await world.state(run)
        assert state.status == resources.PIPELINE_RUN_STATUS_SUCCEEDED
        assert state.steps[0].output.json == '"in time"'


async def test_a_new_leader_leaves_steps_with_workers_that_still_hold_them() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, _):
        await world.register(scheduler, chain(2))
        worker = PlayedWorker(scheduler, capacity=1)
        await worker.connect()
        run = await world.start(scheduler)
        (lease,) = await worker.take()
    async with world.leading() as (scheduler, _):
        back = PlayedWorker(scheduler, capacity=1, worker_id=worker.id)
        await back.connect([lease.token])
        await back.complete(lease)
        (following,) = await back.take()
        assert following.step == "s1"
        assert following.token > lease.token
        assert (await world.state(run)).steps[0].attempt == 1


async def test_a_lease_that_never_arrived_is_sent_again() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, _):
        await world.register(scheduler, chain(1))
        worker = PlayedWorker(scheduler, capacity=1)
        await worker.connect()
        await world.start(scheduler)
        (lost,) = await worker.take()
        back = PlayedWorker(scheduler, capacity=1, worker_id=worker.id)
        await back.connect()
        (lease,) = await back.take()
        assert lease == lost


async def test_whoever_was_deposed_writes_nothing() -> None:
    world = Orchestration()
    async with world.leading() as (old, _):
        await world.register(old, chain(1))
        run = await world.start(old)
        async with world.leading() as (new, _):
            with pytest.raises(Deposed):
                await world.start(old)
            worker = PlayedWorker(new, capacity=1)
            await worker.connect()
            (lease,) = await worker.take()
            await worker.complete(lease)
        assert (await world.state(run)).status == resources.PIPELINE_RUN_STATUS_SUCCEEDED


async def test_a_failed_step_waits_for_its_time_also_under_a_new_leader() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, _):
        await world.register(scheduler, chain(1, retries=1))
        worker = PlayedWorker(scheduler, capacity=1)
        await worker.connect()
        run = await world.start(scheduler)
        (lease,) = await worker.take()
        await worker.report(lease, error_class="ValueError")
        await worker.hear(lambda: lease.token in worker.acknowledged)
        assert (await world.state(run)).steps[0].status == resources.STEP_STATUS_WAITING_RETRY
    async with world.leading() as (scheduler, _):
        worker = PlayedWorker(scheduler, capacity=1)
        await worker.connect()
        world.clock.advance(31)
        (lease,) = await worker.take()
        assert lease.attempt == 2


async def test_a_step_over_its_time_is_ended_though_its_worker_says_nothing() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, _):
        await world.register(scheduler, chain(1))
        worker = PlayedWorker(scheduler, capacity=1)
        await worker.connect()
        run = await world.start(scheduler)
        (lease,) = await worker.take()
        world.clock.advance(60 + LEASE_S)
        scheduler.workers.heard(worker.worker)
        await worker.hear(lambda: lease.token in worker.cancelled)
        state = await world.state(run)
        assert state.status == resources.PIPELINE_RUN_STATUS_FAILED
        assert state.steps[0].error_class == "TIMEOUT"


async def test_further_runs_wait_when_as_many_as_may_run_do() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, _):
        await world.register(scheduler, chain(1, max_active_runs=1))
        worker = PlayedWorker(scheduler, capacity=4)
        await worker.connect()
        first = await world.start(scheduler)
        world.clock.advance(1)
        second = await world.start(scheduler)
        (lease,) = await worker.take()
        assert lease.run == first
        assert (await world.state(second)).status == resources.PIPELINE_RUN_STATUS_QUEUED
        await worker.complete(lease)
        (lease,) = await worker.take()
        assert lease.run == second


async def test_steps_under_way_are_let_finish_before_a_run_fails_and_none_begins() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, _):
        await world.register(scheduler, wide(3))
        worker = PlayedWorker(scheduler, capacity=2)
        await worker.connect()
        run = await world.start(scheduler)
        failing, fine = await worker.take(2)
        await worker.report(failing, error_class="ValueError")
        await worker.hear(lambda: failing.token in worker.acknowledged)
        assert (await world.state(run)).status == resources.PIPELINE_RUN_STATUS_RUNNING
        await worker.complete(fine)
        state = await world.state(run)
        assert state.status == resources.PIPELINE_RUN_STATUS_FAILED
        assert [step.status for step in state.steps] == [
            resources.STEP_STATUS_FAILED,
            resources.STEP_STATUS_COMPLETED,
            resources.STEP_STATUS_SKIPPED,
        ]


async def test_a_cancelled_runs_steps_are_ended_and_it_can_go_on() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, _):
        await world.register(scheduler, chain(2))
        worker = PlayedWorker(scheduler, capacity=1)
        await worker.connect()
        run = await world.start(scheduler)
        (lease,) = await worker.take()
        context = world.context()
        request = service.CancelPipelineRunRequest(command_id=str(context.command_id), run=run, reason="enough")
        await scheduler.cancel(request, context)
        await worker.hear(lambda: lease.token in worker.cancelled)
        await worker.report(lease, error_class="CANCELLED")
        await worker.hear(lambda: lease.token in worker.acknowledged)

        context = world.context()
        await scheduler.resume(service.ResumePipelineRunRequest(command_id=str(context.command_id), run=run), context)
        for _ in range(2):
            (lease,) = await worker.take()
            await worker.complete(lease)
        assert (await world.state(run)).status == resources.PIPELINE_RUN_STATUS_SUCCEEDED
        context = world.context()
        with pytest.raises(FailedPrecondition):
            await scheduler.resume(
                service.ResumePipelineRunRequest(command_id=str(context.command_id), run=run), context
            )


async def test_a_watcher_sees_every_state_to_the_end() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, _):
        await world.register(scheduler, chain(1))
        run = await world.start(scheduler)
        watching = scheduler.watch(run)
        assert (await anext(watching)).status == resources.PIPELINE_RUN_STATUS_QUEUED
        worker = PlayedWorker(scheduler, capacity=1)
        await worker.connect()
        assert (await anext(watching)).status == resources.PIPELINE_RUN_STATUS_RUNNING
        (lease,) = await worker.take()
        await worker.complete(lease)
        assert [state.status async for state in watching] == [resources.PIPELINE_RUN_STATUS_SUCCEEDED]


async def test_a_large_output_is_in_the_object_store_and_not_in_the_log() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, _):
        await world.register(scheduler, chain(2))
        worker = PlayedWorker(scheduler, capacity=1)
        await worker.connect()
        run = await world.start(scheduler)
        (lease,) = await worker.take()
        text = '"' + "x" * 100_000 + '"'
        await worker.complete(lease, text)
        (lease,) = await worker.take()
        assert lease.arguments["given"] == text
        output = (await world.state(run)).steps[0].output
        assert output.json == ""
        assert output.object.size_bytes == len(text)


async def test_an_output_that_is_not_json_fails_the_step() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, _):
        await world.register(scheduler, chain(1))
        worker = PlayedWorker(scheduler, capacity=1)
        await worker.connect()
        run = await world.start(scheduler)
        (lease,) = await worker.take()
        await worker.complete(lease, "{")

        async def failed() -> bool:
            return (await world.state(run)).status == resources.PIPELINE_RUN_STATUS_FAILED

        await until(failed)
        assert (await world.state(run)).steps[0].error_class == "OUTPUT_REFUSED"
