"""The event backbone keeps its promises in two hundred seeded worlds, and the simulation can tell when it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.planted import PLANTED
from tests.simulation.running import simulate

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 200
CHUNK = 25
WITHIN = 100
"""Seeds within which every planted fault is found; `docs/decisions/0014` has how many it took."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_promises_are_kept(first: int) -> None:
    for seed in range(first, first + CHUNK):
        verdict = simulate(seed)
        assert not verdict.findings, f"replay with `make simulate SEED={seed}`: {verdict.findings}"
        assert verdict.events


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(fault: str) -> None:
    failed = next((seed for seed in range(WITHIN) if simulate(seed, PLANTED[fault]).findings), None)

    assert failed is not None, f"{WITHIN} seeds did not find {fault}"
    again = simulate(failed, PLANTED[fault])
    assert (again.digest, again.findings) == (simulate(failed, PLANTED[fault]).digest, again.findings)


@pytest.mark.timeout(120)
def test_a_seed_replays_exactly_in_another_process() -> None:
    program = "from tests.simulation.running import simulate; print(*(simulate(seed).digest for seed in range(5)))"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }

    assert digests == {" ".join(simulate(seed).digest for seed in range(5)) + "\n"}


@pytest.mark.timeout(300)
def test_what_is_hard_comes_to_pass() -> None:
    reached: Counter[str] = Counter()
    for seed in range(50):
        reached += simulate(seed).reached

    assert set(reached) >= {
        "version conflicts",
        "unknown outcomes",
        "failures of the broker",
        "repeats dropped",
        "changes of leader",
    }


def test_seeds_differ() -> None:
    assert len({simulate(seed).digest for seed in range(5)}) == 5
