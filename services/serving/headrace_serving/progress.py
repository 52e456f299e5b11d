"""When a rollout goes on: a pure judgement on what was counted."""

from dataclasses import dataclass
from enum import Enum, auto

from headrace.api.serving.v1.resources_pb2 import Rollout

LEAST_REQUESTS = 20
"""Requests below which a share of failures says nothing, unless the step's rows were answered."""


class Verdict(Enum):
    """What to do with a rollout."""

    WAIT = auto()
    ADVANCE = auto()
    FINISH = auto()
    ABORT = auto()


@dataclass(frozen=True, slots=True)
class Counted:
    """What the candidate answered in its step."""

    requests: int
    rows: int
    failures: int
    """Requests that failed through the model's or the server's fault, beside ``requests``."""
    elapsed_s: float


def judge(rollout: Rollout, counted: Counted) -> tuple[Verdict, str]:
    """The verdict, and why when it is to abort.

    Failures come first: more of them than allowed abort, as soon as there were enough requests to tell. Then rows and
    time are waited for; a step without enough rows at its time-out aborts.
    """
    asked = counted.requests + counted.failures
    enough = counted.rows >= rollout.step_rows
    if counted.failures > rollout.maximum_error_rate * asked and (enough or asked >= LEAST_REQUESTS):
        return Verdict.ABORT, f"{counted.failures} of {asked} requests failed in step {rollout.step}"
    if enough and counted.elapsed_s >= rollout.step_s:
        last = rollout.step + 1 >= len(rollout.steps)
        return (Verdict.FINISH if last else Verdict.ADVANCE), ""
    if not enough and counted.elapsed_s >= rollout.step_timeout_s:
        return (
            Verdict.ABORT,
            f"{counted.rows} of {rollout.step_rows} rows in {rollout.step_timeout_s:g} s of step {rollout.step}",
        )
    return Verdict.WAIT, ""
