"""Does again what a run did: its commit, its uncommitted changes, its packages, its files of data, its command.

``plan`` says what is to be done from what the run captured, and what it did not; ``carry_out`` does it. Everything goes
into one folder: ``code`` is a worktree of the commit (or a clone), ``venv`` has the packages, the rest is what they are
made from. The new run has the tag ``headrace.reproduces`` with the name of the first one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from headrace.api.common.v1.resources_pb2 import DatasetVersion, ObjectRef
from headrace.api.tracking.v1.resources_pb2 import ARTIFACT_KIND_DIFF, Artifact, Package, Run
from headrace.api.tracking.v1.service_pb2 import PresignDownloadRequest
from headrace.client import Client
from headrace.errors import FailedPrecondition

REPRODUCES: Final = "HEADRACE_REPRODUCES"
"""Variable that tells a run which one it does again."""
_GIT_TIMEOUT_S: Final = 30
_DOWNLOAD_TIMEOUT_S: Final = 600
_LEFT_OUT: Final = re.compile(rb"^# left out: (.+)$", re.MULTILINE)
_CUT: Final = "\u2026"


@dataclass(frozen=True, slots=True)
class Command:
    """A program that is to be run."""

    arguments: tuple[str, ...]
    folder: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def shell(self) -> str:
        """As one would type it."""
        words = [*(f"{name}={shlex.quote(value)}" for name, value in self.environment.items())]
        line = " ".join([*words, shlex.join(self.arguments)])
        return line if self.folder is None else f"cd {shlex.quote(str(self.folder))} && {line}"


@dataclass(frozen=True, slots=True)
class Write:
    """A file that is to be written."""

    path: Path
    content: bytes

    @property
    def shell(self) -> str:
        """What it does, for people."""
        return f"# write {self.path} ({len(self.content)} bytes)"


@dataclass(frozen=True, slots=True)
class Fetch:
    """A file of the run that is to be downloaded and verified."""

    run: str
    artifact: str
    object: ObjectRef
    path: Path

    @property
    def shell(self) -> str:
        """What it does, for people."""
        return f"# fetch {self.artifact} ({self.object.size_bytes} bytes) to {self.path}"


Step = Command | Write | Fetch


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, in order; what was not captured, without which it is another run; and what to know."""

    steps: Sequence[Step]
    missing: Sequence[str]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Tools:
    """What this machine has: a Python of the run's minor version, and uv; each None where it does not."""

    python: str | None
    uv: str | None

    @staticmethod
    def of_machine(version: str) -> Tools:
        """Those for a version of Python."""
        minor = ".".join(version.split(".")[:2])
        own = ".".join(str(part) for part in sys.version_info[:2])
        return Tools(sys.executable if minor == own else shutil.which(f"python{minor}"), shutil.which("uv"))


def plan(run: Run, diff: bytes, *, folder: Path, repository: Path, tools: Tools) -> Plan:
    """What does again what a run did.

    Args:
        run: The run, with its packages.
        diff: Its uncommitted changes, as captured; empty without.
        folder: Where everything goes; it must not exist.
        repository: Where the commit may be.
        tools: What the machine has.
    """
    made = _Planning(run, folder.resolve(), tools)
    made.check_out(repository)
    made.apply(diff)
    made.make_environment()
    for dataset in run.datasets:
        made.fetch(dataset)
    made.start()
    return Plan(made.steps, made.missing, made.notes)


def captured_diff(client: Client, run: Run) -> bytes:
    """The uncommitted changes that a run captured; empty when it has none."""
    found = next((each for each in run.artifacts if each.kind == ARTIFACT_KIND_DIFF), None)
    return b"" if found is None else _download(client, run.name, found.path, found.object)


def carry_out(steps: Sequence[Step], client: Client, *, tell: Callable[[Step], None]) -> None:
    """Does it, and says each step before.

    Raises:
        FailedPrecondition: A step failed; what was made stays to be looked at.
    """
    for step in steps:
        tell(step)
        match step:
            case Write():
                step.path.parent.mkdir(parents=True, exist_ok=True)
                step.path.write_bytes(step.content)
            case Fetch():
                step.path.parent.mkdir(parents=True, exist_ok=True)
                step.path.write_bytes(_download(client, step.run, step.artifact, step.object))
            case Command():
                _run(step)


class _Planning:
    """A plan in the making."""

    def __init__(self, run: Run, folder: Path, tools: Tools) -> None:
        self._run, self._folder, self._tools = run, folder, tools
        self._code, self._venv = folder / "code", folder / "venv"
        self._python = self._venv / "bin" / "python"
        self._root = Path(run.code.root).expanduser() if run.code.root else None
        self.steps: list[Step] = []
        self.missing: list[str] = []
        self.notes: list[str] = []

    def check_out(self, repository: Path) -> None:
        commit, remote = self._run.code.commit, self._run.code.remote
        if not commit:
            self.missing.append("the run was not started in a git repository: there is no commit to check out")
        elif _has_commit(repository, commit):
            self._do("git", "-C", str(repository), "worktree", "add", "--detach", str(self._code), commit)
        elif remote:
            self._do("git", "clone", "--no-checkout", "--", remote, str(self._code))
            self._do("git", "-C", str(self._code), "checkout", "--detach", commit)
        else:
            self.missing.append(f"{repository} has no commit {commit}, and the run told no remote: name --repository")

    def apply(self, diff: bytes) -> None:
        if not self._run.code.dirty:
            return
        for name in (found.decode(errors="replace") for found in _LEFT_OUT.findall(diff)):
            where = self.missing if name.startswith("the changes since the commit") else self.notes
            where.append(f"too large to be captured: {name}")
        if b"\ndiff --git " in b"\n" + diff:
            patch = self._folder / "uncommitted.diff"
            self.steps.append(Write(patch, diff))
            self._do("git", "-C", str(self._code), "apply", "--binary", "--whitespace=nowarn", str(patch))
        elif not diff:
            self.missing.append("there were uncommitted changes, and they were not captured")

    def make_environment(self) -> None:
        environment, uv = self._run.environment, self._tools.uv
        if not environment.packages:
            self.missing.append("the packages were not captured")
            return
        if self._tools.python is None:
            self.missing.append(f"this machine has no Python {'.'.join(environment.python.split('.')[:2])}")
            return
        if self._tools.python == sys.executable and environment.python != sys.version.split()[0]:
            self.notes.append(f"Python {sys.version.split()[0]} stands for {environment.python}")
        requirements = self._folder / "requirements.txt"
        lines = [self._requirement(each) for each in environment.packages]
        self.steps.append(Write(requirements, "".join(f"{line}\n" for line in lines if line).encode()))
        exact = ("--no-deps", "-r", str(requirements))
        if uv is not None:
            self._do(uv, "venv", "--quiet", "--python", self._tools.python, str(self._venv))
            self._do(uv, "pip", "install", "--quiet", "--python", str(self._python), *exact)
        else:
            self._do(self._tools.python, "-m", "venv", str(self._venv))
            self._do(str(self._python), "-m", "pip", "install", "--quiet", *exact)

    def fetch(self, dataset: DatasetVersion) -> None:
        """A dataset whose bytes are a file of the run goes where the run read it."""
        held = _artifact_of(dataset, self._run.artifacts)
        is_path = bool(dataset.source) and "://" not in dataset.source
        place = self._moved(str(Path(dataset.source).expanduser())) if is_path else ""
        target = self._code / self._run.code.working_folder / place
        if held is None:
            self.notes.append(f"the dataset {dataset.name} is read from where it was ({dataset.source or 'not told'})")
        elif not place or not target.resolve().is_relative_to(self._code):
            self.steps.append(Fetch(self._run.name, held.path, held.object, self._folder / "data" / held.path))
            self.notes.append(
                f"the run read the dataset {dataset.name} from {dataset.source or 'where it did not tell'}"
            )
        else:
            self.steps.append(Fetch(self._run.name, held.path, held.object, target))

    def start(self) -> None:
        told = self._run.code.command_line
        words = [] if told.endswith(_CUT) else shlex.split(told)
        if self._run.pipeline_run:
            self.missing.append(f"it is a step of {self._run.pipeline_run}: start its pipeline again")
        elif len(words) < 2:
            self.missing.append("the command was not captured" if not told or words else "the command is cut off")
        else:
            beside = str(Path(words[0]).parent)
            script = words[1]
            if str(Path(script).parent) == beside:  # a program that its packages had installed
                script = str(self._python.parent / Path(script).name)
            arguments = (str(self._python), *(self._moved(_at_home(each)) for each in (script, *words[2:])))
            environment = {REPRODUCES: self._run.name, "VIRTUAL_ENV": str(self._venv)}
            self.steps.append(Command(arguments, self._code / self._run.code.working_folder, environment))

    def _requirement(self, package: Package) -> str:
        kind, _, source = package.source.partition(":")
        if not package.source:
            return f"{package.name}=={package.version}"
        if kind not in ("editable", "folder"):
            return f"{package.name} @ {package.source}"
        where = self._moved(str(Path(source).expanduser()))
        if not Path(where).is_relative_to(self._code) and not Path(where).is_dir():
            self.missing.append(f"{package.name} was installed from {source}, which is not there")
            return ""
        return f"-e {where}" if kind == "editable" else where

    def _moved(self, text: str) -> str:
        """A path of the run's repository, in the worktree; anything else as it is."""
        if self._root is None:
            return text
        return re.sub(rf"(^|=){re.escape(str(self._root))}(?=/|$)", lambda found: f"{found[1]}{self._code}", text)

    def _do(self, *arguments: str) -> None:
        self.steps.append(Command(arguments))


def _artifact_of(dataset: DatasetVersion, artifacts: Sequence[Artifact]) -> Artifact | None:
    sha256 = dataset.digest.removeprefix("sha256:")
    held = next((each for each in artifacts if each.object.sha256 == sha256), None)
    return held if held is None or ".." not in PurePosixPath(held.path).parts else None


def _at_home(word: str) -> str:
    return re.sub(r"(^|=)~(?=/|$)", lambda found: f"{found[1]}{Path('~').expanduser()}", word)


def _has_commit(repository: Path, commit: str) -> bool:
    command = ["git", "-C", str(repository), "cat-file", "-e", f"{commit}^{{commit}}"]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=_GIT_TIMEOUT_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _run(command: Command) -> None:
    environment = {**os.environ, **command.environment}
    if venv := command.environment.get("VIRTUAL_ENV"):
        environment["PATH"] = f"{venv}/bin{os.pathsep}{environment.get('PATH', '')}"
    try:
        status = subprocess.run(command.arguments, cwd=command.folder, env=environment, check=False).returncode
    except OSError as error:
        raise FailedPrecondition(f"{command.arguments[0]}: {error.strerror}", reason="STEP_FAILED") from error
    if status:
        raise FailedPrecondition(f"it ended with status {status}: {command.shell}", reason="STEP_FAILED")


def _download(client: Client, run: str, path: str, wanted: ObjectRef) -> bytes:
    url = client.tracking.PresignDownload(PresignDownloadRequest(run=run, path=path)).url
    with urllib.request.urlopen(url, timeout=_DOWNLOAD_TIMEOUT_S) as answer:  # noqa: S310 - a URL the tracker signed
        content: bytes = answer.read()
    if hashlib.sha256(content).hexdigest() != wanted.sha256:
        raise FailedPrecondition(f"{path} has other bytes than its digest names", reason="OBJECT_CORRUPT")
    return content
