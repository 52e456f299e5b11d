"""Who calls: tokens and principals. A token is never stored, only its digest."""

import hashlib
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import orjson

from headrace_kit.errors import PermissionDenied, Unauthenticated

OPERATOR = "operator"
SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller: ``id`` is opaque (``persons/operator``, ``services/monitor``)."""

    id: str
    roles: frozenset[str]


_current: ContextVar[Principal | None] = ContextVar("headrace_principal", default=None)


class Tokens:
    """Digests of tokens and whose they are, from a file that is read anew when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._principals: dict[bytes, Principal] = {}

    def principal(self, token: str) -> Principal:
        """Whose token it is. Raises Unauthenticated when it is nobody's."""
        self._refresh()
        found = self._principals.get(hashlib.sha256(token.encode()).digest())
        if found is None:
            raise Unauthenticated("the token is not valid here", reason="TOKEN_INVALID")
        return found

    def _refresh(self) -> None:
        status = self._path.stat()
        stamp = status.st_mtime_ns, status.st_size
        if stamp != self._stamp:
            entries: Sequence[dict[str, object]] = orjson.loads(self._path.read_bytes())
            self._principals = {bytes.fromhex(str(each["sha256"])): _principal(each) for each in entries}
            self._stamp = stamp


def bearer(header: str) -> str:
    """The token of an ``authorization`` header. Raises Unauthenticated when there is none."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("send a token: authorization: Bearer TOKEN", reason="TOKEN_MISSING")
    return token.strip()


def current_principal() -> Principal:
    """Who made the call that this task answers. Raises Unauthenticated outside of a call."""
    principal = _current.get()
    if principal is None:
        raise Unauthenticated("there is no caller", reason="TOKEN_MISSING")
    return principal


def set_principal(principal: Principal) -> None:
    """Says who made the call that this task answers; for the edges (gRPC, HTTP) only."""
    _current.set(principal)


def require_role(*roles: str) -> Principal:
    """The caller, who has one of the roles. Raises PermissionDenied otherwise."""
    principal = current_principal()
    if principal.roles.isdisjoint(roles):
        raise PermissionDenied(f"{principal.id} needs the role {' or '.join(roles)}", reason="ROLE_MISSING")
    return principal


def _principal(entry: dict[str, object]) -> Principal:
    roles = entry.get("roles")
    return Principal(
        str(entry["principal"]), frozenset(str(each) for each in roles) if isinstance(roles, list) else frozenset()
    )
