"""Imports of libraries without what they import themselves for features that no service uses.

structlog brings Rich and Pygments for coloured tracebacks, minio brings the ciphers of its admin client: together
7.5 MB of each service's memory. Imported afterwards, all are there as ever.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast


@contextmanager
def standing_in(name: str, module: ModuleType | None = None) -> Iterator[None]:
    """Imports inside find ``module`` under this name, by default none; does nothing once the real one is imported."""
    modules = cast("dict[str, Any]", sys.modules)
    if name in modules:
        yield
        return
    modules[name] = module
    try:
        yield
    finally:
        del modules[name]


def import_structlog() -> None:
    """Imports it without Rich."""
    with standing_in("rich"):
        import structlog  # noqa: PLC0415

        del structlog
