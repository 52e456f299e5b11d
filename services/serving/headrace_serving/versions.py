"""Loaded versions: one model in memory, shared by the endpoints that route to it, freed after its last request."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from headrace.api.registry.v1.resources_pb2 import MODEL_FORMAT_PICKLE, Version
from headrace_serving.contract import Contract
from headrace_serving.runtime import Runtime, fitted
from headrace_serving.tensors import Array

INLINE_S: Final = 0.0005
"""Inferences expected to take less run on the event loop: a thread would cost more."""
_WEIGHT: Final = 0.1


class LoadedVersion:
    """A version that can answer.

    Args:
        version: As registered.
        runtime: Its model.
        contract: Its compiled signature.
        threads: Where long inferences run.
    """

    def __init__(self, version: Version, runtime: Runtime, contract: Contract, *, threads: ThreadPoolExecutor) -> None:
        self.name = version.name
        self.number = str(version.number)
        self.is_pickle = version.format == MODEL_FORMAT_PICKLE
        self.contract = contract
        self.platform = runtime.platform
        self._runtime = runtime
        self._threads = threads
        self._row_s = INLINE_S  # a first inference runs in a thread, whatever it takes
        self._in_flight = 0
        self._retired: Callable[[], None] | None = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps the model in memory until the end of the block."""
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._free()

    async def run(self, inputs: Mapping[str, Array], outputs: Sequence[str], *, rows: int) -> dict[str, Array]:
        """The outputs by name, in the types of the signature; inputs were checked.

        Raises:
            ModelFailed: The model's fault.
        """
        began = time.perf_counter()
        if not self.is_pickle and self._row_s * rows < INLINE_S:
            computed = self._runtime.run(inputs, outputs)
            taken = time.perf_counter() - began
        else:
            computed, taken = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._timed, inputs, outputs
            )
        self._row_s += _WEIGHT * (taken / rows - self._row_s)
        return fitted(computed, self.contract.outputs)

    def warm_up(self) -> None:
        """One inference on zeros, in the caller's thread. Raises ModelFailed."""
        inputs = {each.name: each.example() for each in self.contract.inputs}
        outputs = [each.name for each in self.contract.outputs]
        fitted(self._runtime.run(inputs, outputs), self.contract.outputs)
        _, taken = self._timed(inputs, outputs)
        self._row_s = taken

    def retire(self, freed: Callable[[], None] | None = None) -> None:
        """Frees the model once no request uses it."""
        self._retired = freed or _nothing
        self._free()

    def _timed(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> tuple[dict[str, Array], float]:
        began = time.perf_counter()
        computed = self._runtime.run(inputs, outputs)
        return computed, time.perf_counter() - began

    def _free(self) -> None:
        if self._retired is not None and not self._in_flight:
            freed, self._retired = self._retired, None
            self._runtime.close()
            freed()


def _nothing() -> None:
    return
