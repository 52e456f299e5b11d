"""What a run records without being asked: code, command line, packages, machine."""

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

import psutil

from headrace.api.tracking.v1.resources_pb2 import CodeVersion, Environment, Package

MAX_DIFF_BYTES: Final = 16 * 1024 * 1024
MAX_FILE_BYTES: Final = 1024 * 1024
"""Largest file that is not tracked and is captured."""
MAX_UNTRACKED_BYTES: Final = 8 * 1024 * 1024
MAX_UNTRACKED: Final = 1000
MAX_TOLD_BYTES: Final = 256 * 1024
_GIT_TIMEOUT_S: Final = 10


@dataclass(frozen=True, slots=True)
class Code:
    """The code version, and the uncommitted diff as text (empty when the tree is clean or there is no repository)."""

    version: CodeVersion
    diff: bytes


def capture_code(folder: Path | None = None) -> Code:
    """Commit, branch, remote and uncommitted diff of the repository around ``folder`` (default: the working folder).

    The diff is a patch that ``git apply`` takes, with the contents of files that are not tracked and not ignored. What
    is too large is named in its first lines, each ``# left out: name (bytes)``.
    """
    where = (folder or Path.cwd()).resolve()
    entry = Path(sys.argv[0]) if sys.argv and sys.argv[0] else None
    version = CodeVersion(
        command_line=_clip(_without_home(shlex.join([sys.executable, *sys.orig_argv[1:]])), 8000),
        entrypoint=_clip(_without_home(str(entry or "")), 2000),
    )
    commit = _git(where, "rev-parse", "HEAD").decode(errors="replace").strip()
    if not commit:
        return Code(version, b"")
    root = Path(os.fsdecode(_git(where, "rev-parse", "--show-toplevel").rstrip(b"\n")))
    version.commit = commit
    version.branch = _git(where, "branch", "--show-current").decode(errors="replace").strip()
    version.remote = _without_credentials(_git(where, "remote", "get-url", "origin").decode(errors="replace").strip())
    version.root = _clip(_without_home(str(root)), 2000)
    version.working_folder = "" if where == root else _clip(os.path.relpath(where, root), 2000)
    diff = _uncommitted(root)
    version.dirty = bool(diff)
    return Code(version, diff)


def _uncommitted(root: Path) -> bytes:
    """What differs from the commit, as a patch."""
    kept: list[bytes] = []
    left_out: list[tuple[bytes, int]] = []
    room = MAX_UNTRACKED_BYTES
    for name in _git(root, "ls-files", "--others", "--exclude-standard", "-z").split(b"\0")[:-1]:
        size = _size(root / os.fsdecode(name))
        if size is None or size > min(MAX_FILE_BYTES, room) or len(kept) == MAX_UNTRACKED:
            left_out.append((name, size or 0))
        else:
            kept.append(name)
            room -= size
    diff = _diff(root, kept)
    if len(diff) > MAX_DIFF_BYTES:  # half a patch is none
        left_out.append((b"the changes since the commit", len(diff)))
        diff = b""
    told = b"".join(b"# left out: %s (%d bytes)\n" % (name.replace(b"\n", b" "), size) for name, size in left_out)
    return told[:MAX_TOLD_BYTES] + diff


def _diff(root: Path, untracked: Sequence[bytes]) -> bytes:
    """Changes of tracked files, and untracked files whole. The repository's index is left as it is."""
    options = ("--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/")
    index = root / os.fsdecode(_git(root, "rev-parse", "--git-path", "index").rstrip(b"\n"))
    if not untracked or not index.is_file():
        return _git(root, "diff", "HEAD", *options)
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "index"
        shutil.copyfile(index, own)
        names = b"\0".join(untracked)
        _git(root, "add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul", index=own, given=names)
        return _git(root, "diff", "HEAD", *options, index=own)


def _size(path: Path) -> int | None:
    """Bytes of a file or of a link; None for what is neither, or gone."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode) else None


def capture_environment() -> Environment:
    """Python, platform, hardware, and the installed packages with their digest."""
    names: dict[str, metadata.Distribution] = {}
    for each in metadata.distributions():
        if each.metadata["Name"]:  # of two of a name the first on the path is the one that is imported
            names.setdefault(each.metadata["Name"], each)
    packages = [
        Package(name=name, version=names[name].version, source=_source(names[name]))
        for name in sorted(names, key=str.lower)
    ][:5000]
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


def _source(distribution: metadata.Distribution) -> str:
    """Where a package came from when not from an index, by its ``direct_url.json`` (PEP 610); empty for an index."""
    try:
        found = json.loads(distribution.read_text("direct_url.json") or "{}")
        url = str(found["url"])
        if "vcs_info" in found:
            told = f"{found['vcs_info']['vcs']}+{_without_credentials(url)}@{found['vcs_info']['commit_id']}"
        elif "dir_info" in found:
            kind = "editable" if found["dir_info"].get("editable") else "folder"
            told = f"{kind}:{_without_home(unquote(urlsplit(url).path))}"
        else:
            told = _without_credentials(url)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return _clip(told, 2000)


def _git(folder: Path, *arguments: str, index: Path | None = None, given: bytes = b"") -> bytes:
    command = ["git", "-C", str(folder), *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=_GIT_TIMEOUT_S, env=environment, input=given
        )
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
