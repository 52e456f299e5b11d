"""What stage 1 must know to count: which endpoints are watched, how, and by which bins each version is counted."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from google.protobuf.message import DecodeError

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.monitor.v1.resources_pb2 import MonitorConfig, ReferenceProfile, TaskKind
from headrace_kit.errors import KitError
from headrace_monitor.countstore import CountStore
from headrace_monitor.layout import Layout, fault_of, layout_of

_log = structlog.get_logger(__name__)
_REGISTERED = re.compile(r"projects/[^/]+/models/[^/]+/versions/[0-9]+")
_WAIT_S = 10.0
_POLL_S = 0.05

FetchObject = Callable[[ObjectRef], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, eq=False)
class Watch:
    """How an endpoint is watched; these settings of a monitor never change."""

    endpoint_id: int
    slot_us: int
    prediction_column: str
    task: TaskKind.ValueType
    reference: ObjectRef | None


def watch_of(endpoint_id: int, config: MonitorConfig) -> Watch:
    """What stage 1 needs of a monitor's settings."""
    reference = config.reference_profile if config.HasField("reference_profile") else None
    return Watch(endpoint_id, config.slot_s * 1_000_000, config.prediction_column, config.task, reference)


class Watching:
    """Looks up and remembers short ids, watches and layouts. Belongs to one task.

    Args:
        store: Stage 1's tables.
        fetch: Bytes of an object.
        wait_s: How long the registry's word on a version is waited for, when predictions are quicker than it.
    """

    def __init__(self, store: CountStore, fetch: FetchObject, *, wait_s: float = _WAIT_S) -> None:
        self._store = store
        self._fetch = fetch
        self._wait_s = wait_s
        self._mark: tuple[int, int] | None = None
        self._watches: dict[int, Watch] = {}
        self._endpoints: dict[tuple[str, str], int] = {}
        self._versions: dict[str, int] = {}
        self._layouts: dict[tuple[int, int], Layout] = {}

    async def refresh(self) -> None:
        """Takes note of monitors created since; whoever created one before it published is counted from there."""
        mark = await self._store.monitors_mark()
        if mark == self._mark:
            return
        watches: dict[int, Watch] = {}
        for monitor in await self._store.monitors():
            endpoint_id = await self.endpoint_id(monitor.name.split("/")[1], monitor.endpoint)
            watches[endpoint_id] = watch_of(endpoint_id, monitor.config)
        self._watches, self._mark = watches, mark

    def watch(self, endpoint_id: int) -> Watch | None:
        """How an endpoint is watched, if it is."""
        return self._watches.get(endpoint_id)

    async def endpoint_id(self, project: str, endpoint: str) -> int:
        """Short id of an endpoint."""
        found = self._endpoints.get((project, endpoint))
        if found is None:
            found = self._endpoints[project, endpoint] = await self._store.endpoint_id(project, endpoint)
        return found

    async def version_id(self, name: str) -> int:
        """Short id of a version."""
        found = self._versions.get(name)
        if found is None:
            found = self._versions[name] = await self._store.version_id(name)
        return found

    async def layout(self, watch: Watch, version: str, version_id: int) -> Layout:
        """The bins by which a version is counted on an endpoint: its own profile's, or the monitor's."""
        key = (watch.endpoint_id, version_id)
        found = self._layouts.get(key)
        if found is None:
            stored = await self._store.layout(*key)
            if stored is None:
                profile = await self._profile_of(watch, version)
                await self._store.fix_layout(*key, profile.SerializeToString(deterministic=True))
                stored = await self._store.layout(*key)
            found = self._layouts[key] = layout_of(ReferenceProfile.FromString(stored or b""))
        return found

    async def layout_by_id(self, watch: Watch, version_id: int) -> Layout:
        """The bins of a version that was counted before."""
        key = (watch.endpoint_id, version_id)
        found = self._layouts.get(key)
        if found is None:
            stored = await self._store.layout(*key)
            found = self._layouts[key] = layout_of(ReferenceProfile.FromString(stored or b""))
        return found

    async def _profile_of(self, watch: Watch, version: str) -> ReferenceProfile:
        known, reference = await self._store.version_profile(version)
        if _REGISTERED.fullmatch(version):
            deadline = time.monotonic() + self._wait_s
            while not known and time.monotonic() < deadline:
                await asyncio.sleep(_POLL_S)
                known, reference = await self._store.version_profile(version)
        for candidate in (reference, watch.reference):
            profile = None if candidate is None else await self._read(candidate)
            if profile is not None:
                return profile
        return ReferenceProfile()

    async def _read(self, reference: ObjectRef) -> ReferenceProfile | None:
        try:
            profile = ReferenceProfile.FromString(await self._fetch(reference))
        except (KitError, DecodeError) as error:
            _log.warning("profile_unreadable", uri=reference.uri, reason=str(error))
            return None
        fault = fault_of(profile)
        if fault:
            _log.warning("profile_refused", uri=reference.uri, reason=fault)
            return None
        return profile
