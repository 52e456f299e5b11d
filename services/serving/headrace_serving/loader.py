"""From a version's name to a model in memory: looked up, fetched, verified, loaded, warmed."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

import structlog

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.registry.v1 import resources_pb2 as registry
from headrace_kit.errors import KitError, Unavailable
from headrace_kit.objects import ObjectStore, verified
from headrace_serving.contract import Contract
from headrace_serving.quarantine import PickleRuntime
from headrace_serving.runtime import ModelFailed, ModelNotLoadable, OnnxRuntime, Runtime
from headrace_serving.store import KnownVersion
from headrace_serving.trusting import require_signed
from headrace_serving.versions import LoadedVersion

_log = structlog.get_logger(__name__)

LOAD_TIMEOUT_S: Final = 60.0
LOOK_UP_S: Final = 2.0
"""How long the registry is waited for where its last word is remembered."""
MAX_PACKAGE_BYTES: Final = 2 << 30


def _skops(package: bytes, contract: Contract) -> Runtime:
    from headrace_serving.skops_runtime import SklearnRuntime  # noqa: PLC0415 - paid for only where it is used

    return SklearnRuntime(package, contract)


_RUNTIMES: Final[dict[int, Callable[[bytes, Contract], Runtime]]] = {
    registry.MODEL_FORMAT_ONNX: OnnxRuntime,
    registry.MODEL_FORMAT_SKOPS: _skops,
    registry.MODEL_FORMAT_PICKLE: PickleRuntime,
}


class Versions(Protocol):
    """Where versions are looked up: the registry."""

    async def version(self, name: str) -> KnownVersion:
        """A version. Raises NotFound, Unavailable."""
        ...


class VersionMemory(Protocol):
    """What is remembered of versions over restarts."""

    async def version(self, name: str) -> KnownVersion | None:
        """A version, when it is remembered."""
        ...

    async def keep_version(self, known: KnownVersion) -> None:
        """Remembers a version, and what is said of it now."""
        ...


class ModelLoader:
    """Loads versions off the event loop.

    Args:
        versions: The registry.
        memory: Versions looked up before: with the packages in ``folder`` it makes a restart independent of others.
        objects: Where packages lie.
        folder: Keeps packages by their digest.
        threads: Where loading and long inferences run.
    """

    def __init__(
        self,
        versions: Versions,
        memory: VersionMemory,
        objects: ObjectStore,
        *,
        folder: Path,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._versions, self._memory, self._objects = versions, memory, objects
        self._folder, self._threads = folder, threads
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="model-loading")

    async def load(self, name: str, *, allow_pickle: bool) -> LoadedVersion:
        """A version ready to answer: package and signatures verified, inputs and outputs those of the model, one made.

        Raises:
            ModelNotLoadable: It is a pickle without consent, not what it says it is, or not signed as it has to be.
            NotFound: The registry does not know it.
            Unavailable: Registry or object store are away.
        """
        known = await self._look_up(name)
        version = known.version
        require_loadable(version, allow_pickle=allow_pickle)
        signed_by = await require_signed(known, self._kept)
        package = await self._kept(version.artifact)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                loaded = await loop.run_in_executor(self._loading, build_version, version, package, self._threads)
        except TimeoutError as error:
            raise ModelNotLoadable(f"{name} was not loaded within {LOAD_TIMEOUT_S:g} s") from error
        _log.info("model_loaded", version=name, platform=loaded.platform, size_bytes=len(package), signed_by=signed_by)
        return loaded

    async def _look_up(self, name: str) -> KnownVersion:
        """What the registry says now, since keys are withdrawn; while it is away, what it said last."""
        remembered = await self._memory.version(name)
        try:
            async with asyncio.timeout(LOOK_UP_S if remembered is not None else None):
                known = await self._versions.version(name)
        except (Unavailable, TimeoutError) as error:
            if remembered is None:
                raise
            _log.warning("version_as_remembered", version=name, cause=str(error))
            return remembered
        await self._memory.keep_version(known)
        return known

    async def _kept(self, reference: ObjectRef) -> bytes:
        if reference.size_bytes > MAX_PACKAGE_BYTES:
            raise ModelNotLoadable(f"a package has at most {MAX_PACKAGE_BYTES} bytes")
        kept = self._folder / reference.sha256
        try:
            return verified(await asyncio.to_thread(kept.read_bytes), reference)
        except (OSError, KitError):  # not kept, or damaged on this disk: the object store has the truth
            package = await self._objects.get(reference)
        await asyncio.to_thread(_keep, kept, package)
        return package


def require_loadable(version: registry.Version, *, allow_pickle: bool) -> None:
    """Refuses formats that are unknown, and pickles without consent, before anything is fetched."""
    if version.format == registry.MODEL_FORMAT_PICKLE and not allow_pickle:
        raise ModelNotLoadable(
            f"{version.name} is a pickle, which can run any code: allow_pickle consents to that",
            reason="PICKLE_REFUSED",
        )
    if version.format not in _RUNTIMES:
        raise ModelNotLoadable(f"{version.name} has a format that is not known here")


def build_version(version: registry.Version, package: bytes, threads: ThreadPoolExecutor) -> LoadedVersion:
    """A version in memory, warm; ``package`` was verified, ``version`` is loadable. Blocks. Raises ModelNotLoadable."""
    contract = Contract(version.signature)
    runtime = _RUNTIMES[version.format](package, contract)
    loaded = LoadedVersion(version, runtime, contract, threads=threads)
    try:
        loaded.warm_up()
    except ModelFailed as error:
        runtime.close()
        raise ModelNotLoadable(f"{version.name} fails on zeros: {error.message}") from error
    return loaded


def _keep(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        _log.warning("package_not_kept", path=str(path), cause=str(error))
