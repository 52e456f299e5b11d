"""Kafka's jars: named by the committed lock file, fetched once, verified at every start."""

from __future__ import annotations

import hashlib
import os
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from headrace_local.errors import JarDigest, JarUnavailable

if TYPE_CHECKING:
    from jgo.maven import MavenContext

LOCK_NAME = "jgo.lock.toml"
_PARALLEL_DOWNLOADS = 6
_TIMEOUT_S = 20

Progress = Callable[[int, int], None]
"""Called with (jars fetched so far, jars to fetch), from any thread."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked Maven artifact."""

    group: str
    artifact: str
    version: str
    sha256: str
    """Hex digest of the file."""

    @property
    def filename(self) -> str:
        """The file's name in the cache."""
        return f"{self.artifact}-{self.version}.jar"


def lock_file() -> Path:
    """Return the lock file; in a source tree it is a link to the repository's, in an installed wheel a copy of it."""
    return Path(__file__).with_name(LOCK_NAME)


def cache_home() -> Path:
    """The user's cache folder for headrace (``$XDG_CACHE_HOME/headrace`` or ``~/.cache/headrace``)."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "headrace"


def read_lock(path: Path) -> tuple[Jar, ...]:
    """Return the locked jars, sorted by file name: the order of the class path, which Java's AOT cache depends on."""
    entries = tomllib.loads(path.read_text())["dependencies"]
    jars = (Jar(item["groupId"], item["artifactId"], item["version"], item["sha256"]) for item in entries)
    return tuple(sorted(jars, key=lambda jar: jar.filename))


def digest_of(jars: Sequence[Jar]) -> str:
    """Return a hex digest that names this exact set of jars; equal for equal content, whenever the lock was made."""
    lines = "".join(f"{jar.group}:{jar.artifact}:{jar.version}:{jar.sha256}\n" for jar in jars)
    return hashlib.sha256(lines.encode()).hexdigest()


def ensure(jars: Sequence[Jar], *, cache: Path, progress: Progress | None = None) -> list[Path]:
    """Return the jars' paths under ``cache`` in the given order, fetching those that are absent. Blocks.

    Every file's SHA-256 is compared with the lock's, whether it was fetched now or long ago.

    Raises:
        JarUnavailable: a jar is absent and no repository could be reached or has it.
        JarDigest: a file's bytes are not the locked ones.
    """
    folder = cache / "jars"
    folder.mkdir(parents=True, exist_ok=True)
    absent = [jar for jar in jars if not (folder / jar.filename).exists()]
    if absent:
        _fetch_all(absent, folder, progress)
    for jar in jars:
        _verify(folder / jar.filename, jar)
    return [folder / jar.filename for jar in jars]


def _fetch_all(jars: Sequence[Jar], folder: Path, progress: Progress | None) -> None:
    done = 0
    with (
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as temporary,
        ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool,
    ):
        context = _maven(Path(temporary))
        try:
            for _ in pool.map(partial(_fetch, context=context, folder=folder), jars):
                done += 1
                if progress is not None:
                    progress(done, len(jars))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _maven(repo_cache: Path) -> MavenContext:
    # Imported only when something is to be fetched: it takes a quarter of a second, and nearly no start needs it.
    from jgo.config import GlobalSettings  # noqa: PLC0415
    from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415
    from jgo.maven import MavenContext  # noqa: PLC0415

    # The user's own jgo settings may add repositories, or replace "central" by a mirror.
    repositories = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    return MavenContext(repo_cache=repo_cache, local_repos=[], remote_repos=repositories, timeout=_TIMEOUT_S)


def _fetch(jar: Jar, *, context: MavenContext, folder: Path) -> None:
    try:
        path = context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
    except (requests.RequestException, RuntimeError, OSError) as error:
        raise JarUnavailable(
            f"{jar.group}:{jar.artifact}:{jar.version} is not in {folder} and could not be fetched "
            f"({type(error).__name__}); Kafka's jars are downloaded once, so connect this machine to the network "
            "(or name a mirror in ~/.config/jgo.conf) and start again"
        ) from error
    _verify(path, jar)
    path.replace(folder / jar.filename)


def _verify(path: Path, jar: Jar) -> None:
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != jar.sha256:
        raise JarDigest(
            f"{path} is not the locked {jar.group}:{jar.artifact}:{jar.version}: its SHA-256 is {actual}, "
            f"{LOCK_NAME} says {jar.sha256}; delete the file to fetch it again"
        )
