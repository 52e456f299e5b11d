from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace_local.background import BackgroundStack
from headrace_local.stack import Stack
from headrace_local.testing import temporary_folder
from tests.support.serving import Platform


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """Registry and serving on infrastructure of their own, shared by the session."""
    with temporary_folder() as folder:
        stack = BackgroundStack(Stack(folder / "data", only=["registry", "serving"]))
        stack.start()
        try:
            clients = Platform.of(stack)
            yield clients
            clients.close()
        finally:
            stack.stop()
