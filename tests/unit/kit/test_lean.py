"""Services start without what they do not use."""

from __future__ import annotations

import subprocess
import sys

UNUSED = ("Crypto", "argon2", "attr", "pygments", "rich")
PROGRAM = f"""
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sorted(set({UNUSED!r}) & set(sys.modules)))
"""
LATER = """
import headrace_kit.objects, minio, rich.console, rich.traceback, structlog
from minio.minioadmin import MinioAdmin
assert MinioAdmin.__init__ and rich.console.Console and minio.Minio and structlog.get_logger
"""


def run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    return done.stdout.strip()


def test_services_import_nothing_that_they_do_not_use() -> None:
    services = ("tracking", "registry", "orchestrator", "monitor", "serving", "gateway")
    assert run(PROGRAM, *(f"headrace_{each}.__main__" for each in services)) == ""


def test_what_was_left_out_can_be_imported_afterwards() -> None:
    run(LATER)
