"""Whatever the order of results, losses, repeats and leaders: each attempt has one outcome, and runs come to an end."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.orchestrator.v1 import events_pb2 as events
from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace_kit.context import CommandContext
from headrace_orchestrator import definitions, domain

NAME = "projects/p/pipelineRuns/11111111-1111-4111-8111-111111111111"
START = datetime(2026, 1, 1, tzinfo=UTC)


@st.composite
def pipelines(draw: st.DrawFn) -> resources.Pipeline:
    """Graphs of up to six steps, each needing some of those before it."""
    steps: list[resources.StepDefinition] = []
    for index in range(draw(st.integers(1, 6))):
        needed = draw(st.sets(st.integers(0, index - 1))) if index else set[int]()
        steps.append(
            resources.StepDefinition(
                id=f"s{index}",
                function="m:f",
                inputs=[resources.StepInput(argument=f"a{each}", step=f"s{each}") for each in sorted(needed)],
                retry=resources.RetryPolicy(max_attempts=draw(st.integers(0, 3)), backoff_s=draw(st.floats(0, 5))),
                timeout_s=60,
            )
        )
    definition = resources.PipelineDefinition(entrypoint="m:p", steps=steps)
    definitions.check_definition(definition)
    return resources.Pipeline(name="projects/p/pipelines/x", definition=definition, version=1)


@dataclass
class World:
    """A log, the leader's view of it, and workers that may say anything twice, late or never."""

    state: resources.PipelineRun
    now: datetime = START
    epoch: int = 1
    counter: int = 0
    log: list[Message] = field(default_factory=list[Message])
    given: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    commands: int = 0

    def turn(self, turn: domain.Turn) -> None:
        self._append(domain.decide_turn(self.state, turn, self.context()))

    def context(self) -> CommandContext:
        self.commands += 1
        return CommandContext(command_id=UUID(int=self.commands), actor="services/orchestrator", now=self.now)

    def lease(self, *, most: int = 6) -> None:
        grants: list[domain.Grant] = []
        for step in domain.runnable(self.state, self.now)[:most]:
            self.counter += 1
            grants.append(domain.Grant(step, self.epoch << 32 | self.counter, "w"))
        self.turn(domain.Turn(grants=grants))
        self.given.extend((grant.step, grant.token) for grant in grants)

    def lead_anew(self) -> None:
        self.epoch, self.counter = self.epoch + 1, 0

    def cancel(self) -> None:
        if self.state.status in domain.OPEN:
            self._append(domain.decide_cancel(self.state, reason="", context=self.context()))

    def resume(self) -> None:
        if self.state.status not in (resources.PIPELINE_RUN_STATUS_SUCCEEDED, *domain.OPEN):
            self._append(domain.decide_resume(self.state, self.context()))

    def _append(self, decided: list[Message]) -> None:
        for event in decided:
            self.log.append(event)
            self.state = domain.evolve(self.state, event)


def begin(pipeline: resources.Pipeline) -> World:
    context = CommandContext(command_id=UUID(int=1 << 100), actor="persons/operator", now=START)
    decided = domain.decide_start(None, name=NAME, pipeline=pipeline, parameters={}, cause="manual", context=context)
    return World(domain.evolve(None, decided[0]), log=decided)


def outcome_of(step: str, token: int, kind: str) -> domain.Outcome:
    if kind == "done":
        return domain.Outcome(step, token, resources.StepOutput(json="1"))
    return domain.Outcome(
        step, token, None, {"lost": domain.WORKER_LOST, "late": domain.TIMEOUT}.get(kind, "ValueError")
    )


def play(world: World, script: list[int], chance: random.Random) -> None:
    for action in script:
        match action:
            case 0:
                world.lease(most=chance.randrange(1, 4))
            case 1 | 2 | 3 | 4 if world.given:
                chosen = chance.choices(world.given, k=chance.randrange(1, 4))
                kinds = ["done", "error", "lost", "late"]
                turn = domain.Turn([outcome_of(step, token, chance.choice(kinds)) for step, token in chosen])
                world.turn(turn)
            case 5:
                world.lead_anew()
            case 6:
                world.now += timedelta(seconds=chance.randrange(0, 400))
            case 7:
                world.cancel()
            case 8:
                world.resume()
            case _:
                pass


SCRIPTS = st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5, 6, 6, 7, 8]), max_size=60)


@given(pipelines(), SCRIPTS, st.integers())
@settings(max_examples=300, deadline=None)
def test_each_lease_has_at_most_one_outcome_and_each_step_completes_once(
    pipeline: resources.Pipeline, script: list[int], seed: int
) -> None:
    world = begin(pipeline)
    play(world, script, random.Random(seed))

    outcomes = [each for each in world.log if isinstance(each, events.StepCompleted | events.StepFailed)]
    tokens = [each.token for each in outcomes]
    assert len(tokens) == len(set(tokens))
    completed = [each.step for each in outcomes if isinstance(each, events.StepCompleted)]
    assert len(completed) == len(set(completed))


@given(pipelines(), SCRIPTS, st.integers())
@settings(max_examples=300, deadline=None)
def test_tokens_rise_and_only_the_newest_one_counts(pipeline: resources.Pipeline, script: list[int], seed: int) -> None:
    world = begin(pipeline)
    play(world, script, random.Random(seed))

    leased: dict[str, int] = {}
    highest = 0
    for each in world.log:
        if isinstance(each, events.StepLeased):
            assert each.token > highest
            highest = leased[each.step] = each.token
        elif isinstance(each, events.StepCompleted | events.StepFailed):
            assert each.token == leased.pop(each.step)


@given(pipelines(), SCRIPTS, st.integers())
@settings(max_examples=300, deadline=None)
def test_no_step_begins_before_those_it_needs(pipeline: resources.Pipeline, script: list[int], seed: int) -> None:
    world = begin(pipeline)
    play(world, script, random.Random(seed))

    needed = {each.id: definitions.needed_steps(each) for each in pipeline.definition.steps}
    completed: set[str] = set()
    for each in world.log:
        if isinstance(each, events.StepLeased):
            assert needed[each.step] <= completed
        elif isinstance(each, events.StepCompleted):
            completed.add(each.step)


@given(pipelines(), SCRIPTS, st.integers())
@settings(max_examples=300, deadline=None)
def test_the_state_is_a_fold_of_the_log_and_is_never_changed_in_place(
    pipeline: resources.Pipeline, script: list[int], seed: int
) -> None:
    world = begin(pipeline)
    play(world, script, random.Random(seed))

    state: resources.PipelineRun | None = None
    for event in world.log:
        before = state.SerializeToString(deterministic=True) if state is not None else b""
        after = domain.evolve(state, event)
        assert state is None or state.SerializeToString(deterministic=True) == before
        state = after
    assert state is not None
    assert state == world.state
    assert state.revision == len(world.log)


@given(pipelines(), SCRIPTS, st.integers())
@settings(max_examples=300, deadline=None)
def test_every_run_ends_once_its_workers_answer(pipeline: resources.Pipeline, script: list[int], seed: int) -> None:
    world = begin(pipeline)
    play(world, script, random.Random(seed))

    for _ in range(200):
        if world.state.status not in domain.OPEN:
            break
        world.now += timedelta(seconds=400)
        world.turn(domain.Turn([outcome_of(step.id, step.token, "done") for step in domain.leases(world.state)]))
        world.lease()
    assert world.state.status not in domain.OPEN
    ends = (events.PipelineRunSucceeded, events.PipelineRunFailed, events.PipelineRunCancelled)
    resumed = sum(isinstance(each, events.PipelineRunResumed) for each in world.log)
    assert sum(isinstance(each, ends) for each in world.log) == resumed + 1


@given(st.integers(1, 8), st.floats(0, 1000), st.floats(0, 1000))
def test_waits_between_attempts_double_up_to_their_bound(attempts: int, backoff_s: float, most_s: float) -> None:
    retry = resources.RetryPolicy(max_attempts=attempts, backoff_s=backoff_s, max_backoff_s=most_s)
    step = resources.StepDefinition(id="s", function="m:f", retry=retry)
    definition = resources.PipelineDefinition(entrypoint="m:p", steps=[step])
    world = begin(resources.Pipeline(name="projects/p/pipelines/x", definition=definition, version=1))

    waits: list[float] = []
    while world.state.status in domain.OPEN:
        world.lease()
        world.turn(domain.Turn([outcome_of("s", world.given[-1][1], "error")]))
        retry_at = domain.next_retry(world.state)
        if retry_at is not None:
            waits.append((retry_at - world.now).total_seconds())
            world.now = retry_at
    assert len(waits) == attempts - 1
    bound = most_s or domain.DEFAULT_MAX_BACKOFF_S
    for number, wait_s in enumerate(waits):
        assert abs(wait_s - min(backoff_s * 2**number, bound)) < 1e-5
