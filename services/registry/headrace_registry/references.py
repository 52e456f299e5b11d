"""What leads to a version, and so keeps it from being archived or deleted: aliases, routes of endpoints, champions."""

from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.message import Message

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1.resources_pb2 import Model, RoutedVersions, Version
from headrace_kit.errors import FailedPrecondition, NotFound, Violation
from headrace_registry import gates


def of_version(model: Model, version: Version) -> Iterator[Violation]:
    """Everything that leads to a version."""
    for alias in model.aliases:
        if alias.version == version.number:
            yield Violation("alias", alias.alias, f"the alias {alias.alias} points to it: move that first")
    for routed in model.routed:
        if version.number in routed.versions:
            yield Violation("endpoint", routed.endpoint, f"the endpoint {routed.endpoint} routes to it")
    for set_ in model.gates:
        pointer = gates.last_pointer(model, set_.alias)
        compares = set_.champion or set_.compatible_signature_required
        removed = gates.find_alias(model, set_.alias) is None
        if compares and removed and pointer is not None and pointer.version == version.number:
            yield Violation("champion", set_.alias, f"the gates of {set_.alias} compare with it, their last champion")


def require_none_of_version(model: Model, version: Version) -> None:
    """Raises FailedPrecondition with everything that leads to the version."""
    _refuse(version.name, list(of_version(model, version)))


def require_none_of_model(model: Model) -> None:
    """Raises FailedPrecondition with every alias of the model and every endpoint that routes to it."""
    found = [Violation("alias", each.alias, f"it has the alias {each.alias}: remove that") for each in model.aliases]
    found.extend(
        Violation("endpoint", each.endpoint, f"the endpoint {each.endpoint} routes to it") for each in model.routed
    )
    _refuse(model.name, found)


def decide_noted(state: Model | None, name: str, *, endpoint: str, versions: Iterable[int]) -> list[Message]:
    """An endpoint routes to these versions; nothing when that is known. Raises NotFound: there is no such model."""
    if state is None:
        raise NotFound("model", name, field="model")
    wanted = sorted(set(versions))
    known = next((list(each.versions) for each in state.routed if each.endpoint == endpoint), [])
    if wanted == known:
        return []
    return [events.RoutesNoted(model=name, routed=RoutedVersions(endpoint=endpoint, versions=wanted))]


def note(model: Model, routed: RoutedVersions) -> None:
    """Folds what an endpoint routes to into the model, in place."""
    kept = [each for each in model.routed if each.endpoint != routed.endpoint]
    model.ClearField("routed")
    model.routed.extend([*kept, routed] if routed.versions else kept)


def _refuse(name: str, found: Sequence[Violation]) -> None:
    if not found:
        return
    reason = "UNDER_ALIAS" if any(each.type == "alias" for each in found) else "REFERENCED"
    told = "; ".join(each.description for each in found)
    raise FailedPrecondition(f"{name} is in use: {told}", found, field="version", reason=reason)
