"""Pipelines: plain typed functions whose steps run on workers, durably.

An example::

    @step(retries=2)
    def load(month: int) -> list[float]: ...

    @step
    def train(values: list[float], rate: float) -> str: ...

    @pipeline
    def retrain(month: int = 1, rate: float = 0.1) -> None:
        train(load(month), rate)

    run = retrain.start(month=2)
    run.wait()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, overload

from headrace.pipelines.context import StepContext, step_context
from headrace.pipelines.graph import Step, StepOptions
from headrace.pipelines.running import Pipeline, PipelineRunFailed, StartedRun

__all__ = [
    "Pipeline",
    "PipelineRunFailed",
    "StartedRun",
    "Step",
    "StepContext",
    "pipeline",
    "step",
    "step_context",
]

P = ParamSpec("P")
R = TypeVar("R")


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *, retries: int = 0, backoff_s: float = 1.0, max_backoff_s: float = 300.0, timeout_s: float = 3600.0
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    function: Callable[P, R] | None = None,
    /,
    *,
    retries: int = 0,
    backoff_s: float = 1.0,
    max_backoff_s: float = 300.0,
    timeout_s: float = 3600.0,
) -> Step[P, R] | Callable[[Callable[P, R]], Step[P, R]]:
    """Makes a function a step. Its arguments and output travel as JSON, shaped by their annotations.

    An attempt may begin anew elsewhere when a worker is lost: what a step does to the outside must bear that
    (``step_context().command_id()`` helps), while its outcome is recorded once.

    Args:
        function: The function, at the top of a module.
        retries: Further attempts after the first one failed.
        backoff_s: Seconds before the second attempt; doubles each time.
        max_backoff_s: Most seconds between attempts.
        timeout_s: Seconds after which an attempt is ended, with every process it started.
    """
    options = StepOptions(retries=retries, backoff_s=backoff_s, max_backoff_s=max_backoff_s, timeout_s=timeout_s)
    if function is not None:
        return Step(function, options)
    return lambda decorated: Step(decorated, options)


@overload
def pipeline(function: Callable[P, object], /) -> Pipeline[P]: ...
@overload
def pipeline(
    *, name: str = "", project: str = "default", max_active_runs: int = 0
) -> Callable[[Callable[P, object]], Pipeline[P]]: ...
def pipeline(
    function: Callable[P, object] | None = None,
    /,
    *,
    name: str = "",
    project: str = "default",
    max_active_runs: int = 0,
) -> Pipeline[P] | Callable[[Callable[P, object]], Pipeline[P]]:
    """Makes a function of steps a pipeline.

    Called, it runs here, without a platform. ``start`` runs it on the platform; ``schedule`` and ``on_event`` have the
    platform start it by itself.

    Args:
        function: The function, at the top of a module; its parameters are those of its runs.
        name: Id of the pipeline; the function's name by default, with ``-`` for ``_``.
        project: Project.
        max_active_runs: Runs of it at one time, further ones wait; 0 for no limit.
    """

    def make(decorated: Callable[P, object]) -> Pipeline[P]:
        return Pipeline(decorated, name=name, project=project, max_active_runs=max_active_runs)

    return make if function is None else make(function)
