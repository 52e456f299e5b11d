"""``make simulate SEED=n`` replays a seed and prints its trace; ``SEEDS=n`` runs many, from ``FROM`` on.

::

    python -m tests.simulation --seed 4711
    python -m tests.simulation --seeds 10000 --from 0 --jobs 2
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context

from rich.progress import track

from tests.simulation.planted import PLANTED
from tests.simulation.running import Verdict, simulate, simulate_some

CHUNK = 20


def main() -> int:
    """Run; return the exit status: 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="make simulate", description="The event backbone under a seeded world.")
    parser.add_argument("--seed", type=int, help="replay this one and print everything that became true")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--planted", choices=PLANTED, help="plant this fault")
    options = parser.parse_args()
    if options.seed is not None:
        verdict = simulate(options.seed, PLANTED.get(options.planted))
        sys.stdout.write("\n".join(verdict.lines) + "\n")
        tell(verdict)
        return 1 if verdict.findings else 0
    return many(range(options.first, options.first + options.seeds), options.jobs, options.planted)


def many(seeds: range, jobs: int, planted: str | None) -> int:
    """Runs seeds in several processes, with a progress bar; prints each that failed."""
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    failed = events = 0
    reached: Counter[str] = Counter()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as processes:
        verdicts = processes.map(simulate_some, chunks, [planted] * len(chunks))
        progress = track(chain.from_iterable(verdicts), total=len(seeds), description="simulating")
        for verdict in progress:
            events += verdict.events
            reached += verdict.reached
            if verdict.findings:
                failed += 1
                tell(verdict)
    sys.stdout.write(f"{len(seeds)} seeds, {events} events, {failed} failed\n")
    sys.stdout.write("on the way: " + ", ".join(f"{count} {what}" for what, count in reached.items()) + "\n")
    return 1 if failed else 0


def tell(verdict: Verdict) -> None:
    """Prints what a seed came to, and how to see it again."""
    sys.stdout.write(f"seed {verdict.seed}: {verdict.digest}\n")
    for finding in verdict.findings:
        sys.stdout.write(f"  {finding}\n")
    if verdict.findings:
        sys.stdout.write(f"  replay: make simulate SEED={verdict.seed}\n")


if __name__ == "__main__":
    sys.exit(main())
