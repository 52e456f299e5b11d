"""Reading the log files of a data folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from headrace_local.errors import UnknownPart
from headrace_local.folder import DataFolder
from headrace_local.process import tail

_POLL_S = 0.2


def read(folder: DataFolder, name: str | None, *, lines: int, follow: bool) -> Iterator[str]:
    """Yield the last ``lines`` lines of one log, or of all with the part's name before each; then what is added.

    Raises:
        UnknownPart: there is no such log.
    """
    found = {path.stem: path for path in sorted(folder.logs.glob("*.log"))}
    if name is not None and name not in found:
        known = f"there are {', '.join(found)}" if found else f"there are none in {folder.logs}"
        raise UnknownPart(f"no log is called {name}; {known}")
    chosen = found if name is None else {name: found[name]}
    prefixes = {path: f"{part:<12} " if name is None else "" for part, path in chosen.items()}
    ends = {path: path.stat().st_size for path in chosen.values()}
    for path, prefix in prefixes.items():
        yield from (prefix + line for line in tail(path, lines=lines).splitlines())
    while follow:
        for path, prefix in prefixes.items():
            added, ends[path] = _added(path, ends[path])
            yield from (prefix + line for line in added)
        time.sleep(_POLL_S)


def _added(path: Path, start: int) -> tuple[list[str], int]:
    """Return the whole lines added after ``start``, and where they end."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:  # rotated away, the new one not yet begun
        return [], 0
    start = 0 if size < start else start
    with path.open("rb") as file:
        file.seek(start)
        block = file.read(size - start)
    whole = block[: block.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines(), start + len(whole)
