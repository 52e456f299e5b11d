"""The parts of the stack by name, and which part needs which."""

from __future__ import annotations

from collections.abc import Iterable

from headrace_local.errors import UnknownPart

INFRASTRUCTURE = ("postgres", "kafka", "s3")
"""Started first, stopped last."""

SERVICES = ("tracking", "registry", "orchestrator", "serving", "monitor", "gateway")
"""Each is ``python -m headrace_<name>``."""

WITH_DATABASE = ("tracking", "registry", "orchestrator", "serving", "monitor")
"""Services that own a PostgreSQL database ``headrace_<name>``."""

WITH_GRPC = WITH_DATABASE
"""Services that listen for gRPC."""

WITH_HTTP = ("serving", "gateway")
"""Services that listen for HTTP besides their metrics port."""

NEEDS = {"serving": ("registry",)}
"""Services that cannot do without another: serving learns which version answers from the registry."""


def select(only: Iterable[str] | None, *, services: bool = True) -> frozenset[str]:
    """Return the parts to run: those named in ``only`` plus what they need; everything when it is ``None``.

    A service needs the whole infrastructure, and what :data:`NEEDS` says; infrastructure needs nothing.
    ``services=False`` leaves all services out.

    Raises:
        UnknownPart: a name is neither infrastructure nor a service.
    """
    known = {*INFRASTRUCTURE, *SERVICES}
    named = known if only is None else set(only)
    unknown = sorted(named - known)
    if unknown:
        raise UnknownPart(
            f"no part is called {', '.join(unknown)}; the parts are {', '.join((*INFRASTRUCTURE, *SERVICES))}"
        )
    if not services:
        named = named - set(SERVICES)
    for name in named & set(SERVICES):
        named = {*named, *INFRASTRUCTURE, *NEEDS.get(name, ())}
    return frozenset(named)
