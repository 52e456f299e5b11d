"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(read: Callable[[], T], holds: Callable[[T], bool] = bool, *, within_s: float = 30.0) -> T:
    """Reads until what was read holds, and returns it. Raises AssertionError with the last reading otherwise."""
    deadline = time.monotonic() + within_s
    while True:
        value = read()
        if holds(value):
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within_s} s; the last was {value!r}")
        time.sleep(0.02)
