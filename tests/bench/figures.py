"""Figures of a benchmark, and the page they are written to."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure: what, how much, the aim, and what bounds it."""

    what: str
    value: str
    aim: str = ""
    bound_by: str = ""


def conditions() -> str:
    """Where this is measured, in words."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {memory:.0f} GiB, Python "
        f"{platform.python_version()}, everything on the one machine; load average at the end {os.getloadavg()[0]:.1f}."
    )


def page(figures: list[Figure]) -> str:
    """The page."""
    memory = psutil.virtual_memory().total / 2**30
    rows = "\n".join(f"| {each.what} | {each.value} | {each.aim} | {each.bound_by} |" for each in figures)
    return f"""# Benchmarks

Written by `make bench`; measured on {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {memory:.0f} GiB, Python
{platform.python_version()}, everything (clients, services, PostgreSQL, Kafka, S3) on the one machine.
The machine is shared: read ratios within one run, not the figures alone.
Load average at the end: {os.getloadavg()[0]:.1f}.

| what | measured | aim | bound by |
|---|---|---|---|
{rows}
"""
