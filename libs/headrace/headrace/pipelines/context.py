"""Where a step runs: which attempt of which run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

COMMANDS: Final = uuid5(NAMESPACE_URL, "headrace/steps")
"""Root of the command ids of steps. Fixed for ever."""


@dataclass(frozen=True, slots=True)
class StepContext:
    """The attempt that this process carries out.

    Attributes:
        run: Resource name of the pipeline run; empty outside of one.
        step: Id of the step.
        attempt: From 1.
        token: Fencing token: higher than that of every earlier attempt of the run.
        folder: A folder of this attempt's own, the working directory; deleted after it.
        causation_id: The event that gave this attempt to the worker.
        correlation_id: The first event or command of the causal chain.
        on_behalf_of: Who started the run.
    """

    run: str
    step: str
    attempt: int
    token: int
    folder: Path
    causation_id: str
    correlation_id: str
    on_behalf_of: str
    _ordinals: Iterator[int] = field(default_factory=itertools.count, repr=False, compare=False)

    @property
    def project(self) -> str:
        """The run's project; ``default`` outside of a run."""
        return self.run.split("/")[1] if self.run else "default"

    def command_id(self, key: str = "") -> UUID:
        """A command id that is the same in every attempt: the call then takes effect once, however often it is made.

        It fits a call whose request is the same in every attempt too; another request under the same id is refused.

        Args:
            key: Names the call; without one the calls are numbered in the order in which they ask.
        """
        return uuid5(COMMANDS, f"{self.run}/{self.step}/{key or next(self._ordinals)}")


_current: StepContext | None = None


def step_context() -> StepContext:
    """The attempt that this process carries out.

    Where a step is called as a plain function, such as in a test, it is one of no run: ``run`` is empty, the folder is
    the working directory, and command ids are the same in every process.
    """
    return _current or StepContext(
        run="", step="", attempt=1, token=0, folder=Path.cwd(), causation_id="", correlation_id="", on_behalf_of=""
    )


def enter(context: StepContext) -> None:
    """Makes this process that of an attempt; called once, by the worker."""
    global _current  # noqa: PLW0603 - a process carries out one attempt, in all its threads
    _current = context
