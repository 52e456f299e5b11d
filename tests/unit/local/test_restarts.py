from __future__ import annotations

from headrace_local.restarts import RestartPolicy


def test_the_first_two_deaths_within_a_minute_restart_at_once() -> None:
    policy = RestartPolicy()

    assert [policy.died(after_s=1) for _ in range(2)] == [0, 0]


def test_from_the_third_on_the_wait_doubles_up_to_thirty_seconds() -> None:
    policy = RestartPolicy()

    assert [policy.died(after_s=0.1) for _ in range(8)] == [0, 0, 2, 4, 8, 16, 30, 30]


def test_deaths_more_than_a_minute_apart_are_forgotten() -> None:
    policy = RestartPolicy()

    assert [policy.died(after_s=60) for _ in range(10)] == [0] * 10
    assert policy.recent_deaths == 1


def test_three_deaths_spread_over_more_than_a_minute_do_not_wait() -> None:
    policy = RestartPolicy()

    assert [policy.died(after_s=31) for _ in range(6)] == [0] * 6


def test_a_quiet_minute_ends_the_back_off() -> None:
    policy = RestartPolicy()
    for _ in range(6):
        policy.died(after_s=0.1)

    assert policy.died(after_s=61) == 0
