"""headrace local: PostgreSQL, Kafka, S3 and the services as supervised processes in one data folder.

:class:`Stack` is the whole as an object; ``headrace up`` and the tests stand on it. Names are loaded at first use: the
command line imports this package for every command, and the stack's libraries take half a second.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace_local.errors import LocalError
    from headrace_local.external import External
    from headrace_local.stack import Addresses, Stack

__all__ = ["Addresses", "External", "LocalError", "Stack"]

_HOME = {"Addresses": "stack", "External": "external", "LocalError": "errors", "Stack": "stack"}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
