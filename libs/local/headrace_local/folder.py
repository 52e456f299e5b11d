"""The data folder: its layout, its version, and the lock that says who runs it."""

from __future__ import annotations

import fcntl
import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace_local.errors import DataFolderInUse, DataFolderVersion
from headrace_local.files import read_json, write_json

LAYOUT_VERSION = 1
"""Raised whenever the layout below changes in a way older code cannot read."""


def default_path() -> Path:
    """``$HEADRACE_DATA``, or ``headrace`` in the user's state folder."""
    given = os.environ.get("HEADRACE_DATA")
    if given:
        return Path(given).expanduser().absolute()
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "headrace"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who runs the stack of a data folder."""

    pid: int
    started_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Paths inside one data folder; making the value touches nothing."""

    path: Path

    @property
    def marker(self) -> Path:
        """The version file, ``headrace.json``."""
        return self.path / "headrace.json"

    @property
    def lock(self) -> Path:
        """Held (flock) by the supervisor for as long as it lives."""
        return self.path / "lock"

    @property
    def ports(self) -> Path:
        """Ports chosen once."""
        return self.path / "ports.json"

    @property
    def state(self) -> Path:
        """What the supervisor last saw of each part."""
        return self.path / "state.json"

    @property
    def connection(self) -> Path:
        """How clients find the stack."""
        return self.path / "connection.json"

    @property
    def secrets(self) -> Path:
        """Passwords and tokens, one 0600 file each."""
        return self.path / "secrets"

    @property
    def tokens(self) -> Path:
        """Digests of all tokens, for servers to verify callers."""
        return self.path / "tokens.json"

    @property
    def console_code(self) -> Path:
        """SHA-256 (hex) of the console's one-time code."""
        return self.path / "console-code"

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.path / "logs"

    @property
    def background_log(self) -> Path:
        """What a supervisor in the background last said."""
        return self.path / "supervisor.log"

    @property
    def s3(self) -> Path:
        """The object store's bytes."""
        return self.path / "s3"

    @property
    def kafka(self) -> Path:
        """Kafka's settings and log."""
        return self.path / "kafka"

    def scratch(self, service: str) -> Path:
        """The working folder of one service."""
        return self.path / "services" / service

    def log(self, name: str) -> Path:
        """The log file of one process."""
        return self.logs / f"{name}.log"

    def prepare(self) -> str:
        """Make the folder and its subfolders, or check the version of an existing one; return its id.

        The caller holds the lock.

        Raises:
            DataFolderVersion: it was made by another layout version, or is not a data folder.
        """
        marker = self._read_marker()
        if marker is None:
            strangers = sorted(
                item.name for item in self.path.iterdir() if item not in (self.lock, self.background_log)
            )
            if strangers:
                raise DataFolderVersion(
                    f"{self.path} is not a headrace data folder: it holds {', '.join(strangers[:3])} "
                    f"and no {self.marker.name}; choose an empty folder with --data"
                )
            marker = {"version": LAYOUT_VERSION, "id": uuid.uuid4().hex}
            write_json(self.marker, marker)
        self._check_version(marker)
        for folder in (self.secrets, self.logs, self.s3, self.kafka, self.path / "services"):
            folder.mkdir(mode=0o700, exist_ok=True)
        return str(marker["id"])

    def check_version(self) -> None:
        """Raise :class:`DataFolderVersion` when the folder exists with another layout version."""
        marker = self._read_marker()
        if marker is not None:
            self._check_version(marker)

    def _read_marker(self) -> dict[str, object] | None:
        try:
            return read_json(self.marker)
        except ValueError as error:
            raise DataFolderVersion(
                f"{self.marker} cannot be read ({error}); it is not a headrace data folder"
            ) from error

    def _check_version(self, marker: Mapping[str, object]) -> None:
        if marker.get("version") != LAYOUT_VERSION or "id" not in marker:
            raise DataFolderVersion(
                f"{self.path} was made by another version of headrace: its layout is {marker.get('version')!r}, "
                f"this version reads {LAYOUT_VERSION}; use that version, or another folder with --data"
            )


class FolderLock:
    """Exclusive ownership of a data folder; ends with the process, however it ends."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock and write this process's id into it, making the folder (0700) when absent.

        Raises:
            DataFolderInUse: another process holds it; the message names the process.
        """
        self._folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _try_lock(descriptor):
            os.close(descriptor)
            raise DataFolderInUse(in_use(self._folder))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "started_at": time.time()}).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _try_lock(descriptor: int) -> bool:
    for _ in range(10):  # who merely looks (owner_of) holds a shared lock for microseconds
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        else:
            return True
    return False


def owner_of(folder: DataFolder) -> Owner | None:
    """Return who runs the folder's stack now, or ``None`` when nobody does."""
    try:
        descriptor = os.open(folder.lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_owner(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _read_owner(descriptor: int) -> Owner:
    try:
        value = json.loads(os.pread(descriptor, 4096, 0))
        return Owner(pid=int(value["pid"]), started_at=float(value["started_at"]))
    except (ValueError, KeyError, TypeError):
        return Owner(pid=0, started_at=time.time())  # between another process's flock and its write


def in_use(folder: DataFolder) -> str:
    """Say who runs the stack of ``folder``."""
    owner = owner_of(folder)
    if owner is None or owner.pid == 0:
        return f"another process is starting or stopping a stack on {folder.path}"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner.started_at))
    return (
        f"{folder.path} is already run by process {owner.pid} since {since}; "
        "`headrace status` shows it, `headrace down` stops it"
    )
