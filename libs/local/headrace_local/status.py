"""What runs on a data folder, as its supervisor last wrote it down."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import psutil
from rich.table import Table

from headrace_local.files import read_json
from headrace_local.folder import DataFolder, owner_of


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One part of a running stack."""

    name: str
    state: str
    pid: int | None
    restarts: int
    address: str
    memory_bytes: int
    """Memory of the process and its descendants; what several of them share counts once."""
    log: str


@dataclass(frozen=True, slots=True)
class StackStatus:
    """A running stack."""

    pid: int
    phase: str
    """``starting``, ``ready`` or ``stopping``."""
    since: float
    """Seconds since the epoch."""
    memory_bytes: int
    """Of the supervisor and everything it runs; what several processes share counts once."""
    parts: tuple[PartStatus, ...]


NOTHING = StackStatus(pid=0, phase="stopped", since=0.0, memory_bytes=0, parts=())


def read(folder: DataFolder) -> StackStatus | None:
    """Return what runs on ``folder`` now, or ``None`` when nothing does."""
    owner = owner_of(folder)
    if owner is None:
        return None
    state = read_json(folder.state) or {}
    if state.get("pid") != owner.pid:  # left over from a supervisor that was killed
        state = {}
    rows = state.get("parts")
    parts = tuple(_part(row) for row in rows) if isinstance(rows, list) else ()
    return StackStatus(
        pid=owner.pid,
        phase=str(state.get("phase", "starting")),
        since=owner.started_at,
        memory_bytes=_memory_bytes(owner.pid),
        parts=parts,
    )


def as_json(found: StackStatus | None, folder: DataFolder) -> dict[str, object]:
    """Return a JSON object: ``running``, ``data`` and, when it runs, the fields of :class:`StackStatus`."""
    head: dict[str, object] = {"running": found is not None, "data": str(folder.path)}
    return head if found is None else {**head, **asdict(found)}


def table(found: StackStatus) -> Table:
    """Return the status as a table for people."""
    since = time.strftime("%H:%M:%S", time.localtime(found.since))
    title = f"{found.phase}, process {found.pid}, since {since}, {found.memory_bytes / 2**20:.0f} MiB in all"
    rows = Table("part", "state", "address", "process", "memory", "restarts", box=None, pad_edge=False, title=title)
    for part in found.parts:
        memory = f"{part.memory_bytes / 2**20:.0f} MiB" if part.memory_bytes else ""
        rows.add_row(part.name, part.state, part.address, str(part.pid or ""), memory, str(part.restarts))
    return rows


def _part(row: dict[str, object]) -> PartStatus:
    pid = row["pid"] if isinstance(row["pid"], int) else None
    return PartStatus(
        name=str(row["name"]),
        state=str(row["state"]),
        pid=pid,
        restarts=int(str(row["restarts"])),
        address=str(row["address"]),
        memory_bytes=_memory_bytes(pid),
        log=str(row["log"]),
    )


def _memory_bytes(pid: int | None) -> int:
    if pid is None:
        return 0
    try:
        process = psutil.Process(pid)
        return sum(_proportional(member) for member in (process, *process.children(recursive=True)))
    except psutil.Error:
        return 0


def _proportional(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
