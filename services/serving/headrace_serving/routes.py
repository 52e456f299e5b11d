"""Shares of versions: pure arithmetic on routes."""

from collections.abc import Collection, Iterable, Sequence

from headrace.api.serving.v1 import resources_pb2 as resources

WHOLE = 100
"""What the shares of an endpoint sum to, percent."""


def whole(version: str) -> list[resources.Route]:
    """One version answers everything."""
    return [resources.Route(version=version, weight=WHOLE)]


def canary(baseline: Sequence[resources.Route], candidate: str, weight: int) -> list[resources.Route]:
    """The candidate gets ``weight`` percent, the baseline's routes share the rest as they did before."""
    others = [each for each in baseline if each.version != candidate]
    return [*_scaled(others, WHOLE - weight), resources.Route(version=candidate, weight=weight)]


def without(routes: Iterable[resources.Route], blocked: Collection[str]) -> list[resources.Route]:
    """The routes that may answer, scaled up to the whole; none when none may."""
    return _scaled([each for each in routes if each.version not in blocked], WHOLE)


def last_good(endpoint: resources.Endpoint, blocked: Collection[str]) -> list[resources.Route]:
    """Routes in which no blocked version answers, as close to what was last in force as there is.

    What is left of the routes before the rollout or of those in force; else the newest earlier ones of which
    something is left; else what is left of a rollout's mixture; else none.
    """
    current = list(endpoint.routes)
    earlier = [list(each.routes) for each in reversed(endpoint.previous)]
    candidates = [*earlier, current] if endpoint.HasField("rollout") else [current, *earlier]
    return next((left for each in candidates if (left := without(each, blocked))), [])


def _scaled(routes: Sequence[resources.Route], total: int) -> list[resources.Route]:
    """The same proportions with another sum, by largest remainder; routes left without a share go."""
    before = sum(each.weight for each in routes)
    if not before or not total:
        return []
    exact = [each.weight * total / before for each in routes]
    shares = [int(each) for each in exact]
    by_remainder = sorted(range(len(routes)), key=lambda index: (shares[index] - exact[index], index))
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return [
        resources.Route(version=each.version, weight=share) for each, share in zip(routes, shares, strict=True) if share
    ]
