from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from headrace_local.folder import DataFolder, owner_of
from headrace_local.testing import temporary_folder


@pytest.fixture
def data() -> Generator[Path]:
    """A path for a data folder, not yet made; a supervisor that a failed test left on it is killed."""
    with temporary_folder() as folder:
        yield folder / "data"
        owner = owner_of(DataFolder(folder / "data"))
        if owner is not None and owner.pid != os.getpid():
            os.kill(owner.pid, signal.SIGKILL)
