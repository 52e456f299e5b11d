"""What starts runs by itself: once a nominal time, once an event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID, uuid4

import pytest

from headrace.api.monitor.v1 import events_pb2 as monitor
from headrace.api.orchestrator.v1 import events_pb2 as events
from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace_kit.consumer import ReceivedEvent
from headrace_kit.errors import InvalidArgument
from headrace_orchestrator import definitions
from headrace_orchestrator.automation import Automation, latest_due
from headrace_orchestrator.scheduler import Scheduler
from tests.support.orchestrating import PIPELINE_NAME, Orchestration, chain, until

RETRAIN = "headrace.monitor.v1.RetrainRequested"


def definition(*parameters: tuple[str, str, str]) -> resources.PipelineDefinition:
    made = chain(1)
    for name, kind, default in parameters:
        made.parameters.add(name=name, type=kind, default_json=default)
    return made


async def change(
    world: Orchestration,
    scheduler: Scheduler,
    automation: Automation,
    request: service.SetScheduleRequest | service.SetTriggerRequest,
) -> resources.Pipeline:
    context = world.context()
    pipeline = await scheduler.change_pipeline(
        PIPELINE_NAME,
        context=context,
        request=request,
        decide=lambda state: (
            definitions.decide_set_schedule(state, request, context)
            if isinstance(request, service.SetScheduleRequest)
            else definitions.decide_set_trigger(state, request)
        ),
        respond=lambda state: state,
    )
    automation.follow(pipeline)
    return pipeline


async def schedule(
    world: Orchestration, scheduler: Scheduler, automation: Automation, cron: str = "*/10 * * * *", **given: str
) -> None:
    made = resources.Schedule(id="s", cron=cron, parameters=given)
    await change(world, scheduler, automation, service.SetScheduleRequest(pipeline=PIPELINE_NAME, schedule=made))


async def trigger(world: Orchestration, scheduler: Scheduler, automation: Automation, made: resources.Trigger) -> None:
    await change(world, scheduler, automation, service.SetTriggerRequest(pipeline=PIPELINE_NAME, trigger=made))


async def runs(world: Orchestration) -> list[resources.PipelineRun]:
    return [await world.state(str(row["name"])) for row in world.store.rows("pipeline_runs")]


async def fired(world: Orchestration) -> list[datetime]:
    found = [each for _, each in await world.events(PIPELINE_NAME) if isinstance(each, events.ScheduleFired)]
    return [each.nominal_time.ToDatetime(UTC) for each in found]


def retrain(event_id: UUID | None = None, *, project: str = "p", model: str = "projects/p/models/m") -> ReceivedEvent:
    message = monitor.RetrainRequested(project=project, endpoint="delays", model=model, reason="drift")
    message.onset.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    return ReceivedEvent(
        id=event_id or uuid4(),
        type=RETRAIN,
        source="headrace/monitor",
        subject=f"projects/{project}/monitors/w",
        time=datetime(2026, 3, 1, tzinfo=UTC),
        sequence=1,
        position=1,
        hlc=5,
        project=project,
        actor="services/monitor",
        on_behalf_of="",
        causation_id=None,
        correlation_id=UUID(int=9),
        traceparent="",
        data=message.SerializeToString(),
        message=message,
    )


async def test_a_schedule_starts_a_run_at_each_nominal_time() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, automation):
        await world.register(scheduler, definition(("rate", "float", "1")))
        await schedule(world, scheduler, automation, rate="0.5")
        for count in (1, 2):
            world.clock.advance(600)

            async def seen(count: int = count) -> bool:
                return len(await fired(world)) == count

            await until(seen)
        assert await fired(world) == [
            datetime(2026, 3, 2, 10, 10, tzinfo=UTC),
            datetime(2026, 3, 2, 10, 20, tzinfo=UTC),
        ]
        first = (await runs(world))[0]
        assert first.cause == "schedule:s"
        assert dict(first.parameters) == {"rate": "0.5"}


async def test_of_the_times_missed_while_nobody_led_only_the_latest_is_made_up_for() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, automation):
        await world.register(scheduler, definition())
        await schedule(world, scheduler, automation)
    world.clock.advance(4 * 3600)
    async with world.leading():

        async def seen() -> bool:
            return len(await fired(world)) == 1

        await until(seen)
        assert await fired(world) == [datetime(2026, 3, 2, 14, 0, tzinfo=UTC)]
    async with world.leading() as (scheduler, automation):
        world.clock.advance(600)

        async def seen_again() -> bool:
            return len(await fired(world)) == 2

        await until(seen_again)
    assert len(await runs(world)) == 2


async def test_a_changed_or_paused_schedule_does_not_start_what_it_was_set_to_before() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, automation):
        await world.register(scheduler, definition())
        await schedule(world, scheduler, automation, "5 * * * *")
        world.clock.advance(60)
        await schedule(world, scheduler, automation, "12 * * * *")
        world.clock.advance(700)

        async def seen() -> bool:
            return bool(await fired(world))

        await until(seen)
        assert await fired(world) == [datetime(2026, 3, 2, 10, 12, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("cron", "zone", "around", "expected_hours"),
    [
        # Clocks go from 03:00 back to 02:00 on 25 October 2026, and from 02:00 to 03:00 on 29 March 2026.
        ("30 2 * * *", "Europe/Zurich", datetime(2026, 10, 25, tzinfo=UTC), 24),
        ("30 2 * * *", "Europe/Zurich", datetime(2026, 3, 29, tzinfo=UTC), 24),
        ("0 12 * * *", "America/New_York", datetime(2026, 11, 1, tzinfo=UTC), 25),
    ],
)
def test_a_daily_schedule_fires_once_a_day_when_clocks_change(
    cron: str, zone: str, around: datetime, expected_hours: int
) -> None:
    made = resources.Schedule(id="s", cron=cron, time_zone=zone)
    times = definitions.cron_of(made, around - timedelta(days=1, hours=12))
    fires = [next(times).astimezone(UTC) for _ in range(4)]
    assert len({each.astimezone(fires[0].tzinfo).date() for each in fires}) == 4
    gaps = {round((later - earlier) / timedelta(hours=1)) for earlier, later in pairwise(fires)}
    assert gaps <= {22, 23, 24, 25, 26}
    assert expected_hours in gaps


def test_what_is_due_includes_this_minute_and_nothing_before_it_was_set() -> None:
    made = resources.Schedule(id="s", cron="0 * * * *")
    made.set_time.FromDatetime(datetime(2026, 3, 2, 10, 30, tzinfo=UTC))
    assert latest_due(made, datetime(2026, 3, 2, 10, 59, 59, tzinfo=UTC)) is None
    assert latest_due(made, datetime(2026, 3, 2, 11, 0, 0, tzinfo=UTC)) == datetime(2026, 3, 2, 11, tzinfo=UTC)
    made.last_time.FromDatetime(datetime(2026, 3, 2, 11, tzinfo=UTC))
    assert latest_due(made, datetime(2026, 3, 2, 11, 30, tzinfo=UTC)) is None


async def test_an_event_that_comes_five_times_starts_one_run_that_names_it_as_its_cause() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, automation):
        await world.register(scheduler, definition(("model", "str", ""), ("onset", "str", ""), ("tries", "int", "3")))
        made = resources.Trigger(
            id="t",
            event_type=RETRAIN,
            match={"endpoint": "delays"},
            parameters={"model": "model", "onset": "onset"},
        )
        await trigger(world, scheduler, automation, made)
        event = retrain()
        for _ in range(5):
            await automation.handle(event)
        (run,) = await runs(world)
        assert dict(run.parameters) == {
            "model": '"projects/p/models/m"',
            "onset": '"2026-01-02T00:00:00Z"',
            "tries": "3",
        }
        assert run.causation_id == str(event.id)
        assert run.correlation_id == str(UUID(int=9))
        assert run.cause == "trigger:t"


@pytest.mark.parametrize("newest_only", [True, False])
async def test_where_only_the_newest_is_of_use_a_new_run_ends_those_that_wait(newest_only: bool) -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, automation):
        await world.register(scheduler, definition())
        made = resources.Trigger(id="t", event_type=RETRAIN, newest_only=newest_only)
        await trigger(world, scheduler, automation, made)
        by_hand = await world.start(scheduler)
        first, second = retrain(), retrain()
        for event in (first, second, second):
            await automation.handle(event)
        states = {run.causation_id: run for run in await runs(world) if run.name != by_hand}
        ended = states[str(first.id)].status == resources.PIPELINE_RUN_STATUS_CANCELLED
        assert ended is newest_only
        assert states[str(second.id)].status == resources.PIPELINE_RUN_STATUS_QUEUED
        assert (await world.state(by_hand)).status == resources.PIPELINE_RUN_STATUS_QUEUED


async def test_only_events_of_the_project_that_match_start_runs() -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, automation):
        await world.register(scheduler, definition())
        await trigger(world, scheduler, automation, resources.Trigger(id="t", event_type=RETRAIN, match={"model": "x"}))
        await automation.handle(retrain())
        await automation.handle(retrain(project="other", model="x"))
        assert await runs(world) == []
        await automation.handle(retrain(model="x"))
        assert len(await runs(world)) == 1


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (resources.Trigger(id="t", event_type=RETRAIN, paused=True), "the trigger is paused"),
        (resources.Trigger(id="t", event_type=RETRAIN, parameters={"count": "reason"}), "it must be of type int"),
        (resources.Trigger(id="t", event_type=RETRAIN), "it has no default and must be given"),
    ],
)
async def test_what_starts_nothing_says_why_in_the_log_once(made: resources.Trigger, reason: str) -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, automation):
        await world.register(scheduler, definition(("count", "int", "")))
        await trigger(world, scheduler, automation, made)
        event = retrain()
        for _ in range(2):
            await automation.handle(event)
        assert await runs(world) == []
        (found,) = [each for _, each in await world.events(PIPELINE_NAME) if isinstance(each, events.TriggerSuppressed)]
        assert found.event_id == str(event.id)
        assert reason in found.reason


@pytest.mark.parametrize(
    ("made", "field"),
    [
        (resources.Schedule(id="s", cron="* * * *"), "schedule.cron"),
        (resources.Schedule(id="s", cron="61 * * * *"), "schedule.cron"),
        (resources.Schedule(id="s", cron="* * * * *", time_zone="Mars/Olympus"), "schedule.time_zone"),
        (resources.Schedule(id="s", cron="* * * * *", time_zone="../etc/passwd"), "schedule.time_zone"),
        (resources.Schedule(id="s", cron="* * * * *", parameters={"no": "1"}), "schedule.parameters['no']"),
        (resources.Schedule(id="S!", cron="* * * * *"), "schedule.id"),
    ],
)
async def test_a_wrong_schedule_is_refused_with_its_field(made: resources.Schedule, field: str) -> None:
    world = Orchestration()
    async with world.leading() as (scheduler, automation):
        await world.register(scheduler, definition())
        with pytest.raises(InvalidArgument) as raised:
            await change(
                world, scheduler, automation, service.SetScheduleRequest(pipeline=PIPELINE_NAME, schedule=made)
            )
        assert raised.value.field == field
