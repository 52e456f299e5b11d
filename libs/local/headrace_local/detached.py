"""``headrace up --detach`` and ``headrace down``: a supervisor in the background, found again by its data folder."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time

from rich.console import Console

from headrace_local import jars, status
from headrace_local.credentials import Credentials
from headrace_local.errors import DataFolderInUse, LocalError, NotRunning, PartFailed
from headrace_local.external import from_environment
from headrace_local.files import read_json
from headrace_local.folder import DataFolder, in_use, owner_of
from headrace_local.foreground import Plan, jar_progress
from headrace_local.names import select as select_parts
from headrace_local.process import tail
from headrace_local.services import bytecode_environment

_READY_WITHIN_S = 300.0
_STOP_WITHIN_S = 150.0
_POLL_S = 0.05


def start(plan: Plan, console: Console) -> None:
    """Start a supervisor in the background, wait until all is ready, and print where everything listens.

    Raises:
        DataFolderInUse: a stack runs there already.
        LocalError: it could not be started; the message is the supervisor's own.
    """
    folder = DataFolder(plan.data)
    if owner_of(folder) is not None:
        raise DataFolderInUse(in_use(folder))
    folder.check_version()
    if "kafka" in select_parts(plan.only) - from_environment(os.environ).names:
        with jar_progress(console) as progress:  # here, where somebody watches
            jars.ensure(jars.read_lock(jars.lock_file()), cache=jars.cache_home(), progress=progress)
    supervisor, reader = _spawn(plan, folder)
    with console.status("starting ..."):
        try:
            _wait_ready(folder, supervisor, reader)
        except KeyboardInterrupt:
            supervisor.terminate()
            supervisor.wait()
            raise
    found = status.read(folder)
    if found is not None:
        console.print(status.table(found))
    _print_console_link(folder, console)
    console.print(f"runs in the background as process {supervisor.pid}; `headrace down` stops it", highlight=False)


def stop(folder: DataFolder, console: Console) -> bool:
    """Stop the stack of ``folder`` in order; return whether one ran.

    Raises:
        LocalError: it did not stop in time.
    """
    owner = owner_of(folder)
    if owner is None:
        return False
    if owner.pid > 0:
        with contextlib.suppress(ProcessLookupError):
            os.kill(owner.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_WITHIN_S
    with console.status("stopping in order ..."):
        while owner_of(folder) is not None:
            if time.monotonic() > deadline:
                raise LocalError(f"process {owner.pid} did not stop within {_STOP_WITHIN_S:.0f} s; see {folder.logs}")
            time.sleep(_POLL_S)
    return True


def _spawn(plan: Plan, folder: DataFolder) -> tuple[subprocess.Popen[bytes], int]:
    """Start the supervisor; return it with the end of the pipe on which it says how its start went."""
    reader, writer = os.pipe()
    arguments = [sys.executable, "-m", "headrace_local", "--data", str(plan.data), "--report-to", str(writer)]
    if plan.only is not None:
        arguments += ["--only", ",".join(plan.only)]
    if plan.port_base is not None:
        arguments += ["--port-base", str(plan.port_base)]
    folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    with folder.background_log.open("wb") as log:
        folder.background_log.chmod(0o600)
        supervisor = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={**os.environ, **bytecode_environment(jars.cache_home(), os.environ)},
            pass_fds=[writer],
        )
    os.close(writer)
    return supervisor, reader


def _wait_ready(folder: DataFolder, supervisor: subprocess.Popen[bytes], reader: int) -> None:
    with os.fdopen(reader) as pipe:
        readable, _, _ = select.select([pipe], [], [], _READY_WITHIN_S)
        if not readable:
            supervisor.terminate()
            raise PartFailed(f"not ready within {_READY_WITHIN_S:.0f} s; see {folder.logs}")
        said = pipe.read()
    if not said:
        supervisor.wait()
        last = tail(folder.background_log, lines=30)
        raise PartFailed(f"the supervisor ended with status {supervisor.returncode} before all was ready:\n{last}")
    outcome = json.loads(said)
    if "reason" in outcome:
        supervisor.wait()
        raise LocalError.of(outcome["reason"], outcome["message"])


def console_link(folder: DataFolder) -> str:
    """Return a fresh one-time link to the console of the stack that runs on ``folder``.

    Raises:
        NotRunning: nothing runs there, or no gateway.
    """
    found = status.read(folder) or status.NOTHING
    if "gateway" not in {part.name for part in found.parts}:
        raise NotRunning(f"no gateway runs on {folder.path}; `headrace up` starts it")
    gateway_url = str((read_json(folder.connection) or {}).get("gateway_url", ""))
    return Credentials(folder).console_link(gateway_url)


def _print_console_link(folder: DataFolder, console: Console) -> None:
    with contextlib.suppress(NotRunning):
        console.print(f"console, once: {console_link(folder)}", highlight=False, soft_wrap=True)
