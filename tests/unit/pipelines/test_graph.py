"""The graph that a pipeline's function draws."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.pipelines import pipeline, step, step_context
from headrace_orchestrator.definitions import check_definition


@step
def numbers(count: int) -> list[int]:
    return list(range(count))


@step(retries=3, backoff_s=2.0, max_backoff_s=10.0, timeout_s=7.0)
def total(values: list[int], scale: float = 1.0) -> float:
    return sum(values) * scale


@step
def combine(parts: list[float], label: str) -> str:
    return f"{label}: {sum(parts)}"


@step
def clean() -> None:
    pass


@pipeline(name="sums", max_active_runs=2)
def sums(count: int = 3, scale: float = 1.0, *, label: str, extra: dict[str, int] | None = None) -> str:
    """Sums up."""
    first = total(numbers(count), scale)
    second = total(numbers(4), scale=2.0)
    clean.after(first, second)()
    return combine([first, second], label)


def test_a_pipeline_called_is_the_plain_function() -> None:
    assert sums(3, 2.0, label="all") == "all: 18.0"


def test_the_graph_has_each_call_with_where_its_arguments_come_from() -> None:
    definition = sums.definition()
    check_definition(definition)
    steps = {each.id: each for each in definition.steps}
    assert list(steps) == ["numbers", "total", "numbers-2", "total-2", "clean", "combine"]
    assert list(steps["total"].inputs) == [
        resources.StepInput(argument="values", step="numbers"),
        resources.StepInput(argument="scale", parameter="scale"),
    ]
    assert list(steps["numbers-2"].inputs) == [resources.StepInput(argument="count", constant_json="4")]
    assert list(steps["clean"].after) == ["total", "total-2"]
    parts, label = steps["combine"].inputs
    assert [each.step for each in parts.list.items] == ["total", "total-2"]
    assert label.parameter == "label"


def test_the_definition_says_how_steps_are_run_and_where_they_are() -> None:
    definition = sums.definition()
    retry = definition.steps[1].retry
    assert (retry.max_attempts, retry.backoff_s, retry.max_backoff_s) == (4, 2.0, 10.0)
    assert definition.steps[1].timeout_s == 7.0
    assert definition.steps[1].function.endswith("test_graph:total")
    assert definition.max_active_runs == 2
    assert definition.description == "Sums up."
    assert len(definition.source_digest) == 64
    module = definition.entrypoint.partition(":")[0]
    assert (Path(definition.source_path) / f"{module.replace('.', '/')}.py").samefile(__file__)


def test_parameters_have_their_types_and_defaults() -> None:
    found = {each.name: (each.type, each.default_json) for each in sums.definition().parameters}
    assert found == {"count": ("int", "3"), "scale": ("float", "1.0"), "label": ("str", ""), "extra": ("", "null")}


@pipeline
def branches(count: int) -> None:
    if count:
        numbers(count)


@pipeline
def computes(count: int) -> None:
    numbers(count + 1)


@pipeline
def looks_inside(count: int) -> None:
    for each in numbers(count):
        numbers(each)


@pipeline
def calls_wrongly() -> None:
    numbers()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


@pipeline
def hands_over_a_function() -> None:
    combine(parts=[1.0], label=print)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@pipeline
def empty() -> None:
    pass


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (branches, TypeError, "parameter count exists only when the pipeline runs"),
        (computes, TypeError, "parameter count exists only when the pipeline runs"),
        (looks_inside, TypeError, "the output of step numbers exists only"),
        (calls_wrongly, TypeError, "missing a required argument: 'count'"),
        (hands_over_a_function, TypeError, "argument label of combine"),
        (empty, ValueError, "calls no step"),
    ],
)
def test_what_can_not_be_a_pipeline_says_why(wrong: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        wrong.definition()  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]


def test_a_pipeline_inside_a_function_can_not_be_imported_by_workers() -> None:
    @pipeline
    def inner() -> None:
        clean()

    with pytest.raises(ValueError, match="top of a module"):
        inner.definition()


def test_a_step_outside_of_a_run_has_a_context_of_no_run() -> None:
    context = step_context()
    assert (context.run, context.attempt, context.project) == ("", 1, "default")
    assert context.command_id("a") == step_context().command_id("a")
    assert context.command_id() != context.command_id()
