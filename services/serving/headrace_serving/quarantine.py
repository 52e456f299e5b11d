"""Pickles: loaded in a sandboxed child process of their own, never in this one."""

import contextlib
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Final

import numpy as np
import structlog

from headrace_serving import framing
from headrace_serving.contract import Contract
from headrace_serving.runtime import ModelFailed, ModelNotLoadable
from headrace_serving.tensors import OBJECT, Array, as_bytes

_log = structlog.get_logger(__name__)

START_S: Final = 30.0
RUN_S: Final = 30.0
REQUIRED: Final = ("privileges", "limits", "files")
"""Parts of the sandbox without which no pickle is opened; a network of its own is not to be had everywhere."""


class PickleRuntime:
    """A scikit-learn model from a pickle (or joblib) package, in a child process.

    Raises:
        ModelNotLoadable: The child could not load it, or the sandbox does not hold here.
    """

    platform = "sklearn_pickle"

    def __init__(self, package: bytes, contract: Contract) -> None:
        self._names = [each.name for each in contract.inputs]
        self._turn = threading.Lock()
        command = [sys.executable, "-I", "-m", "headrace_serving.pickle_child"]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", env={}
        )
        try:
            framing.write_frame(_open(self._child.stdin), package)
            answer, _ = self._answer(START_S)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.close()
            raise ModelNotLoadable("the child that opens the pickle ended or did not answer") from error
        held = answer.get("sandbox", {})
        missing = [part for part in REQUIRED if not held.get(part)]
        if answer["error"] or missing:
            self.close()
            why = f"the sandbox lacks {', '.join(missing)}" if missing else answer["error"]
            raise ModelNotLoadable(f"the pickle was not opened: {why}")
        _log.info("pickle_in_sandbox", pid=self._child.pid, **{part: bool(value) for part, value in held.items()})

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """As ``Runtime.run``; a child that does not answer within ``RUN_S`` is killed."""
        arrays = {name: _plain(inputs[name]) for name in self._names}
        with self._turn:
            try:
                framing.write_message(_open(self._child.stdin), {"outputs": list(outputs)}, arrays)
                answer, computed = self._answer(RUN_S)
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                self.close()
                raise ModelFailed("the child that holds the pickle ended or did not answer") from error
        if answer["error"]:
            raise ModelFailed(f"the model failed: {answer['error']}")
        return computed

    def close(self) -> None:
        """As ``Runtime.close``: ends the child."""
        self._child.kill()
        for stream in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError):
                _open(stream).close()
        self._child.wait()

    def _answer(self, within_s: float) -> tuple[framing.Document, dict[str, Array]]:
        """The next message; the child is killed when it is silent for too long, which ends a read under way."""
        stream = _open(self._child.stdout)
        timer = threading.Timer(within_s, self._child.kill)
        timer.daemon = True
        timer.start()
        began = time.monotonic()
        try:
            ready, _, _ = select.select([stream], [], [], within_s)
            if not ready:
                raise TimeoutError
            return framing.read_message(stream)
        except EOFError:
            if time.monotonic() - began >= within_s:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise OSError("the child has no pipe")
    return stream


def _plain(array: Array) -> Array:
    if array.dtype != OBJECT:
        return array
    return np.array([as_bytes(each).decode(errors="replace") for each in array.ravel().tolist()]).reshape(array.shape)
