"""What a run records without being asked: code, command line, packages, machine."""

import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import psutil

from headrace.api.tracking.v1.resources_pb2 import CodeVersion, Environment, Package

MAX_DIFF_BYTES: Final = 16 * 1024 * 1024
_GIT_TIMEOUT_S: Final = 10


@dataclass(frozen=True, slots=True)
class Code:
    """The code version, and the uncommitted diff as text (empty when the tree is clean or there is no repository)."""

    version: CodeVersion
    diff: bytes


def capture_code(folder: Path | None = None) -> Code:
    """Commit, branch, remote and uncommitted diff of the repository around ``folder`` (default: the working folder)."""
    where = folder or Path.cwd()
    entry = Path(sys.argv[0]) if sys.argv and sys.argv[0] else None
    version = CodeVersion(
        command_line=_clip(_without_home(shlex.join([sys.executable, *sys.orig_argv[1:]])), 8000),
        entrypoint=_clip(_without_home(str(entry or "")), 2000),
    )
    commit = _git(where, "rev-parse", "HEAD").decode(errors="replace").strip()
    if not commit:
        return Code(version, b"")
    version.commit = commit
    version.branch = _git(where, "branch", "--show-current").decode(errors="replace").strip()
    version.remote = _without_credentials(_git(where, "remote", "get-url", "origin").decode(errors="replace").strip())
    diff = _git(where, "diff", "HEAD", "--binary")
    untracked = _git(where, "ls-files", "--others", "--exclude-standard")
    version.dirty = bool(diff or untracked)
    if untracked:
        diff += b"".join(b"# untracked: " + name + b"\n" for name in untracked.splitlines())
    return Code(version, diff[:MAX_DIFF_BYTES])


def capture_environment() -> Environment:
    """Python, platform, hardware, and the installed packages with their digest."""
    names: dict[str, str] = {}
    for each in metadata.distributions():
        if each.metadata["Name"]:  # of two of a name the first on the path is the one that is imported
            names.setdefault(each.metadata["Name"], each.version)
    packages = [Package(name=name, version=names[name]) for name in sorted(names, key=str.lower)][:5000]
    listing = "\n".join(f"{each.name}=={each.version}" for each in packages)
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        host=platform.node(),
        cpu=_processor(),
        cpu_count=os.cpu_count() or 0,
        memory_bytes=psutil.virtual_memory().total,
        gpus=_gpus(),
        packages_digest=hashlib.sha256(listing.encode()).hexdigest(),
        packages=packages,
    )


def _git(folder: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(folder), *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_GIT_TIMEOUT_S, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""


def _without_home(text: str) -> str:
    """A text with ``~`` for the user's home folder: its name is often a person's, and events are for ever."""
    home = str(Path("~").expanduser())
    return re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text) if len(home) > 1 else text


def _without_credentials(remote: str) -> str:
    parts = urlsplit(remote)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return _clip(remote, 2000)
    return _clip(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])), 2000)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _gpus() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.decode(errors="replace").splitlines()[:64] if done.returncode == 0 else []


def _clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
