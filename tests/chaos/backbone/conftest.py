"""Servers for tests that kill, freeze and starve them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace_local.testing import Infrastructure, run_infrastructure


@pytest.fixture(scope="module")
def servers() -> Iterator[Infrastructure]:
    """Servers of a module's own."""
    with run_infrastructure() as running:
        yield running
