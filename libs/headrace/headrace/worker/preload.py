"""What steps import of the installed packages: told by a step, imported by a template, given up by a step.

Only packages are meant: the code of pipelines is imported anew by each step, so that changed code is seen.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import sysconfig
import threading
import warnings
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

_beforehand: list[str] = []
"""Modules that ``import_all`` brought into this process."""


def installed() -> object:
    """Changes when a package is installed or removed."""
    return tuple(Path(each).stat().st_mtime_ns for each in _places())


def imported(before: Collection[str]) -> list[str]:
    """Names of the modules of installed packages that this process imported since ``before``, in order of import."""
    places = tuple(f"{each}{os.sep}" for each in _places())
    found: list[str] = []
    for name, module in list(sys.modules.items()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        if name not in before and isinstance(origin, str) and origin.startswith(places):
            found.append(name)
    return found


def import_all(modules: Iterable[str]) -> bool:
    """Imports modules, those that can be; whether the process may still be forked.

    What they print on standard output is lost. A process with a thread of Python's beside the main one may not be
    forked: the thread, and the locks it holds, would be gone in the child.
    """
    before = set(sys.modules)
    with warnings.catch_warnings(), _silent():
        warnings.simplefilter("ignore")
        for name in modules:
            with contextlib.suppress(Exception):  # what can not be imported alone is imported by those who need it
                importlib.import_module(name)
    _beforehand.extend(each for each in sys.modules if each not in before)
    return threading.active_count() == 1


def give_way(source_path: str) -> None:
    """Forgets what was imported of packages whose names the code at ``source_path`` has, too: there it goes first."""
    if source_path in _places():
        return
    with contextlib.suppress(OSError):
        own = {each.name.partition(".")[0] for each in Path(source_path).iterdir()}
        for name in _beforehand:
            if name.partition(".")[0] in own:
                sys.modules.pop(name, None)


def _places() -> list[str]:
    return sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
