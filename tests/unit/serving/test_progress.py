from __future__ import annotations

import pytest

from headrace.api.serving.v1.resources_pb2 import Rollout
from headrace_serving.progress import Counted, Verdict, judge

ROLLOUT = Rollout(steps=[10, 50], step=0, step_rows=100, step_s=5, maximum_error_rate=0.1, step_timeout_s=60)


@pytest.mark.parametrize(
    ("requests", "rows", "failures", "elapsed_s", "verdict"),
    [
        (0, 0, 0, 0.0, Verdict.WAIT),
        (50, 100, 0, 4.9, Verdict.WAIT),
        (50, 99, 0, 10.0, Verdict.WAIT),
        (50, 100, 0, 5.0, Verdict.ADVANCE),
        (90, 100, 10, 5.0, Verdict.ADVANCE),
        (89, 100, 11, 0.0, Verdict.ABORT),
        (0, 0, 19, 0.0, Verdict.WAIT),
        (0, 0, 20, 0.0, Verdict.ABORT),
        (1, 100, 1, 5.0, Verdict.ABORT),
        (0, 0, 0, 60.0, Verdict.ABORT),
    ],
)
def test_a_step_is_judged(requests: int, rows: int, failures: int, elapsed_s: float, verdict: Verdict) -> None:
    counted = Counted(requests=requests, rows=rows, failures=failures, elapsed_s=elapsed_s)
    found, reason = judge(ROLLOUT, counted)
    assert found is verdict
    assert bool(reason) == (verdict is Verdict.ABORT)


def test_the_last_step_finishes() -> None:
    last = Rollout()
    last.CopyFrom(ROLLOUT)
    last.step = 1
    assert judge(last, Counted(requests=1, rows=100, failures=0, elapsed_s=5))[0] is Verdict.FINISH
