"""A pipeline of three steps. With a platform running (``headrace up``): ``python examples/pipelines/hello.py``.

Each step runs in a process of its own on a worker. Kill the worker, or the orchestrator, while it runs: the run goes
on.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from statistics import fmean

from headrace.pipelines import pipeline, step, step_context


@dataclass(frozen=True)
class Summary:
    """What is known of some numbers."""

    count: int
    mean: float


@step(retries=2, backoff_s=0.2)
def draw(count: int, seed: int) -> list[float]:
    """Numbers from a die with a million sides."""
    context = step_context()
    print(f"attempt {context.attempt} of {context.step}: drawing {count} numbers")
    generator = random.Random(seed)
    return [generator.randrange(1_000_000) / 1_000_000 for _ in range(count)]


@step
def summarize(numbers: list[float]) -> Summary:
    """Their summary."""
    return Summary(count=len(numbers), mean=fmean(numbers))


@step(timeout_s=60)
def report(summaries: list[Summary]) -> str:
    """A sentence."""
    total = sum(each.count for each in summaries)
    mean = sum(each.mean * each.count for each in summaries) / total
    sentence = f"{total} numbers with a mean of {mean:.3f}"
    print(sentence)
    return sentence


@pipeline
def hello(count: int = 1000, seed: int = 7) -> None:
    """Draws numbers twice, side by side, and says what they are like."""
    first = summarize(draw(count, seed))
    second = summarize(draw(count, 11))
    report([first, second])


def main() -> None:
    """Start a run on the platform and follow it to its end."""
    run = hello.start(count=int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    print(f"started {run.name}")
    run.wait(timeout_s=120)
    print(run.output("report", str))


if __name__ == "__main__":
    main()
