"""Which version answers a request: the routes of every endpoint as they are in force in this process.

A change takes effect by one swap of a reference, after every version it needs is loaded and warm. Requests under way
end on the version they began on. What a change forbids stops at once, even while something else still loads.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from headrace.api.serving.v1.resources_pb2 import Endpoint, Route
from headrace_kit.errors import KitError, NotFound, Unavailable
from headrace_serving.domain import blocked_versions
from headrace_serving.runtime import ModelNotLoadable
from headrace_serving.traffic import Traffic
from headrace_serving.versions import LoadedVersion

_log = structlog.get_logger(__name__)

BUCKETS: Final = 10_000
DEFAULT_PROJECT: Final = "default"


class Loader(Protocol):
    """Loads versions; see ``ModelLoader``."""

    async def load(self, name: str, *, allow_pickle: bool) -> LoadedVersion:
        """A version ready to answer. Raises KitError."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """A version that answers, and the bucket below which requests are its."""

    version: LoadedVersion
    below: int
    traffic: Traffic


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The routes of an endpoint in force."""

    endpoint: Endpoint
    shares: tuple[Share, ...]
    whole: bool = True
    """Whether these are all the routes of the endpoint; until everything is loaded they may be what is left."""

    @property
    def largest(self) -> Share | None:
        """The version with the largest share."""
        starts = [0, *(each.below for each in self.shares)]
        sized = zip(
            self.shares, (each.below - start for each, start in zip(self.shares, starts, strict=False)), strict=True
        )
        return max(sized, key=lambda each: each[1], default=(None, 0))[0]


class Router:
    """The plans of all endpoints. Belongs to one event loop."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._plans: dict[str, Plan] = {}
        self._wanted: dict[str, Endpoint] = {}
        self._faults: dict[str, str] = {}
        self._unloaded: set[str] = set()
        self._loaded: dict[str, LoadedVersion] = {}
        self._loads: dict[tuple[str, bool], asyncio.Task[LoadedVersion]] = {}
        self._traffic: dict[tuple[str, str], Traffic] = {}
        self._standby: set[asyncio.Task[None]] = set()

    async def apply(self, endpoint: Endpoint) -> None:
        """Brings the routes of an endpoint into force; an older revision than the newest seen changes nothing.

        Returns when they are in force, or can not be: then the fault is kept, what may still answer does, and ``retry``
        tries again.
        """
        newest = self._wanted.get(endpoint.name)
        if newest is not None and newest.revision > endpoint.revision:
            return
        self._wanted[endpoint.name] = endpoint
        self._stop_forbidden(endpoint)
        names = [each.version for each in endpoint.routes]
        try:
            await asyncio.gather(*(self.load(each, allow_pickle=endpoint.allow_pickle) for each in names))
        except KitError as error:
            if self._wanted[endpoint.name] is endpoint and self._faults.get(endpoint.name) != error.message:
                self._faults[endpoint.name] = error.message
                _log.error("routes_not_in_force", endpoint=endpoint.name, cause=error.message)
            return
        if self._wanted[endpoint.name] is not endpoint:
            return
        self._faults.pop(endpoint.name, None)
        self._plans[endpoint.name] = Plan(endpoint, self._shares(endpoint.name, endpoint.routes))
        _log.info("routes_in_force", endpoint=endpoint.name, revision=endpoint.revision, versions=names)
        self._retire()
        self._prepare_fallback(endpoint)

    async def load(self, version: str, *, allow_pickle: bool) -> LoadedVersion:
        """A version in memory; several that ask at once wait for one load. Raises KitError."""
        found = self._loaded.get(version)
        if found is None:
            key = (version, allow_pickle)
            task = self._loads.get(key)
            if task is None:
                task = self._loads[key] = asyncio.create_task(self._load(version, allow_pickle=allow_pickle))
            found = await asyncio.shield(task)
        if found.is_pickle and not allow_pickle:
            raise ModelNotLoadable(
                f"{version} is a pickle, to which the endpoint does not consent", reason="PICKLE_REFUSED"
            )
        return found

    async def retry(self) -> None:
        """Tries again what could not be brought into force."""
        for name in list(self._faults):
            await self.apply(self._wanted[name])

    async def reload(self, model: str) -> None:
        """Loads an endpoint on this server (again). Raises NotFound, or what keeps it from being loaded."""
        name = self._known(model)
        self._unloaded.discard(name)
        await self.apply(self._wanted[name])
        if name in self._faults:
            raise ModelNotLoadable(self._faults[name])

    def unload(self, model: str) -> None:
        """Answers nothing for an endpoint until it is loaded again. Raises NotFound."""
        self._unloaded.add(self._known(model))

    def plan(self, model: str) -> Plan:
        """The routes of ``endpoint`` or ``project/endpoint``.

        Raises:
            NotFound: There is no such endpoint.
            Unavailable: No version answers.
        """
        name = endpoint_name(model)
        plan = self._plans.get(name)
        if plan is None or not plan.shares or name in self._unloaded:
            name = self._known(model)
            why = "it is unloaded" if name in self._unloaded else self._faults.get(name, "no version answers")
            raise Unavailable(f"{model} is not ready: {why}", reason="MODEL_NOT_READY")
        return plan

    def choose(self, model: str, version: str, key: str) -> tuple[Plan, Share]:
        """The version that answers: the one named, or the one the key falls to, the same as long as the shares stay.

        Raises:
            NotFound: There is no such endpoint, or the version named does not answer.
            Unavailable: No version answers.
        """
        plan = self.plan(model)
        if version:
            return plan, self.share(plan, version)
        if len(plan.shares) == 1:
            return plan, plan.shares[0]
        digest = hashlib.blake2b(f"{plan.endpoint.name}:{key}".encode(), digest_size=8).digest()
        bucket = int.from_bytes(digest, "big") % BUCKETS
        return plan, next(each for each in plan.shares if bucket < each.below)

    @staticmethod
    def share(plan: Plan, version: str) -> Share:
        """The share of a version by its number. Raises NotFound."""
        found = next((each for each in plan.shares if each.version.number == version), None)
        if found is None:
            raise NotFound("version", f"{version[:100]} of {plan.endpoint.name}", field="model_version")
        return found

    def traffic(self, endpoint: str) -> list[Traffic]:
        """What was counted of an endpoint, by version."""
        return [each for (name, _), each in sorted(self._traffic.items(), key=lambda item: item[0]) if name == endpoint]

    def states(self) -> list[tuple[str, Plan | None, str]]:
        """Every endpoint with its plan, and why it has none or another than it should."""
        return [
            (
                name,
                None if name in self._unloaded else self._plans.get(name),
                "unloaded" if name in self._unloaded else self._faults.get(name, ""),
            )
            for name in sorted(self._wanted)
        ]

    def revision(self, endpoint: str) -> int:
        """Revision of an endpoint whose routes are in force, as a whole; 0 for none."""
        plan = self._plans.get(endpoint)
        return plan.endpoint.revision if plan is not None and plan.whole else 0

    def _known(self, model: str) -> str:
        name = endpoint_name(model)
        if name not in self._wanted:
            raise NotFound("model", model[:200] or "of no name", field="model_name")
        return name

    def _stop_forbidden(self, endpoint: Endpoint) -> None:
        """What must not answer stops now; what is loaded of the new routes, or else of the old, answers meanwhile."""
        plan = self._plans.get(endpoint.name)
        if plan is None:
            return
        pickles = {each.version.name for each in plan.shares if each.version.is_pickle and not endpoint.allow_pickle}
        forbidden = blocked_versions(endpoint) | pickles
        if not any(each.version.name in forbidden for each in plan.shares):
            return
        answering = self._loaded.keys() - forbidden
        remaining = [each for each in endpoint.routes if each.version in answering] or [
            each for each in plan.endpoint.routes if each.version in answering
        ]
        self._plans[endpoint.name] = Plan(endpoint, self._shares(endpoint.name, remaining), whole=False)

    def _shares(self, endpoint: str, routes: Sequence[Route]) -> tuple[Share, ...]:
        total = sum(each.weight for each in routes)
        shares: list[Share] = []
        weight = 0
        for each in routes:
            weight += each.weight
            traffic = self._traffic.setdefault((endpoint, each.version), Traffic(each.version))
            shares.append(Share(self._loaded[each.version], weight * BUCKETS // total, traffic))
        return tuple(shares)

    async def _load(self, version: str, *, allow_pickle: bool) -> LoadedVersion:
        try:
            loaded = await self._loader.load(version, allow_pickle=allow_pickle)
            self._loaded[version] = loaded
            return loaded
        finally:
            del self._loads[version, allow_pickle]

    def _prepare_fallback(self, endpoint: Endpoint) -> None:
        """Loads what a rollback would go back to, so that it takes no time then."""
        for name in _fallback(endpoint) - self._loaded.keys():
            task = asyncio.create_task(self._load_quietly(name, allow_pickle=endpoint.allow_pickle))
            self._standby.add(task)
            task.add_done_callback(self._standby.discard)

    async def _load_quietly(self, version: str, *, allow_pickle: bool) -> None:
        try:
            await self.load(version, allow_pickle=allow_pickle)
        except KitError as error:
            _log.warning("fallback_not_loaded", version=version, cause=error.message)

    def _retire(self) -> None:
        """Frees versions that no plan names and no rollback would go back to."""
        needed: set[str] = {each.version for endpoint in self._wanted.values() for each in endpoint.routes}
        needed |= {share.version.name for plan in self._plans.values() for share in plan.shares}
        for endpoint in self._wanted.values():
            needed |= _fallback(endpoint)
            if endpoint.HasField("rollout"):
                needed.add(endpoint.rollout.version)
        for name in self._loaded.keys() - needed:
            self._loaded.pop(name).retire()
            _log.info("model_retired", version=name)


def endpoint_name(model: str) -> str:
    """Resource name of ``endpoint``, of ``project/endpoint``, or the name as it is."""
    if model.startswith("projects/"):
        return model
    project, slash, endpoint = model.partition("/")
    return f"projects/{project}/endpoints/{endpoint}" if slash else f"projects/{DEFAULT_PROJECT}/endpoints/{project}"


def model_name(endpoint: str) -> str:
    """What clients of the inference protocol call an endpoint."""
    _, project, _, name = endpoint.split("/")
    return name if project == DEFAULT_PROJECT else f"{project}/{name}"


def _fallback(endpoint: Endpoint) -> set[str]:
    """Versions of the routes before that may answer."""
    blocked = blocked_versions(endpoint)
    earlier = ({each.version for each in routes.routes} - blocked for routes in reversed(endpoint.previous))
    return next((each for each in earlier if each), set[str]())
