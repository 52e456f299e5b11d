"""Who calls: tokens and principals. A token is never stored, only its digest."""

import hashlib
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import orjson
import structlog

from headrace_kit.errors import PermissionDenied, Unauthenticated, Unavailable

_log = structlog.get_logger(__name__)
_OPAQUE = re.compile(r"(persons|services)/[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
"""A principal stands in events for ever: no mail address, no name as people write it."""

OPERATOR = "operator"
SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller: ``id`` is opaque (``persons/operator``, ``services/monitor``)."""

    id: str
    roles: frozenset[str]


def is_principal(text: str) -> bool:
    """Whether a text may stand in events as who did something: ``persons/ID`` or ``services/NAME``, opaque."""
    return _OPAQUE.fullmatch(text) is not None


_current: ContextVar[Principal | None] = ContextVar("headrace_principal", default=None)
_seal_key: ContextVar[bytes] = ContextVar("headrace_seal_key", default=b"")


class Tokens:
    """Digests of tokens and whose they are, from a file that is read anew when it changes.

    The file is a JSON list of ``{"sha256": hex, "principal": id, "roles": [role]}``. When it can not be read, nobody
    is let in; nor is a principal whose id is not opaque.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._principals: Mapping[bytes, Principal] = {}
        self.seal_key = b""
        """A secret that all processes with the same file share; empty before the first look."""

    def principal(self, token: str) -> Principal:
        """Whose token it is.

        Raises:
            Unauthenticated: it is nobody's.
            Unavailable: the file is missing or not of its form.
        """
        self._refresh()
        # Only digests are compared, so the time it takes tells nothing about a token.
        found = self._principals.get(hashlib.sha256(token.encode()).digest())
        if found is None:
            raise Unauthenticated("the token is not valid here", reason="TOKEN_INVALID")
        return found

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            stamp = status.st_mtime_ns, status.st_size, status.st_ino
            if stamp != self._stamp:
                content = self._path.read_bytes()
                self._principals = _parse(content)
                self.seal_key = hashlib.sha256(b"headrace seal\0" + content).digest()
                self._stamp = stamp
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Unavailable("callers can not be verified now: no tokens file", reason="TOKENS_FILE") from error


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


def caller() -> Principal | None:
    """As ``current_principal``, but None outside of a call."""
    return _current.get()


def set_principal(principal: Principal) -> None:
    """Says who made the call that this task answers; for the edges (gRPC, HTTP) only."""
    _current.set(principal)


def seal_key() -> bytes:
    """The key of what clients carry and bring back unchanged, such as page tokens: the platform's, inside a call."""
    return _seal_key.get()


def set_seal_key(key: bytes) -> None:
    """Says with which key this task seals; for the edges only."""
    _seal_key.set(key)


def require_role(*roles: str) -> Principal:
    """The caller, who has one of the roles. Raises PermissionDenied otherwise."""
    principal = current_principal()
    if principal.roles.isdisjoint(roles):
        raise PermissionDenied(f"{principal.id} needs the role {' or '.join(roles)}", reason="ROLE_MISSING")
    return principal


def _parse(content: bytes) -> Mapping[bytes, Principal]:
    entries: list[dict[str, object]] = orjson.loads(content)
    found: dict[bytes, Principal] = {}
    for index, each in enumerate(entries):
        principal = _principal(each)
        if is_principal(principal.id):
            found[bytes.fromhex(str(each["sha256"]))] = principal
        else:
            _log.error("principal_refused", entry=index, cause="a principal is persons/ID or services/NAME: a-z 0-9 -")
    return found


def _principal(entry: dict[str, object]) -> Principal:
    roles = entry["roles"]
    if not isinstance(roles, list):
        raise TypeError("roles is a list")
    return Principal(str(entry["principal"]), frozenset(str(each) for each in roles))
