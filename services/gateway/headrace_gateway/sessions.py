"""Who enters the console: a one-time code becomes a signed cookie; forms carry a token bound to it."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

COOKIE: Final = "headrace_session"
LIFETIME_S: Final = 7 * 24 * 3600
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Session:
    """A person who has entered: ``id`` is random, ``csrf`` goes into every form."""

    id: str
    csrf: str


class Sessions:
    """Makes and checks sessions. The key lies in the process's own folder, so that sessions survive a restart.

    Args:
        folder: The gateway's scratch folder.
        code_file: File with the SHA-256 of the one-time code; consumed at its first use.
        clock: Seconds since the epoch.
    """

    def __init__(self, folder: Path, code_file: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        self._code_file, self._clock = code_file, clock
        self._key = _key(folder / "session.key")

    def enter(self, code: str) -> str | None:
        """The cookie for the right code, which is good for once; None for a wrong or used one."""
        if self._code_file is None:
            return None
        try:
            wanted = self._code_file.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        given = hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()
        if not wanted or not hmac.compare_digest(given.encode(), wanted.encode()):
            return None
        try:
            self._code_file.unlink()  # of several who come with the same code, one can do this
        except FileNotFoundError:
            return None
        return self._cookie(secrets.token_urlsafe(24), int(self._clock()) + LIFETIME_S)

    def session(self, cookie: str) -> Session | None:
        """The session of a cookie, or None."""
        identity, _, rest = cookie.partition(".")
        expires, _, signature = rest.partition(".")
        if not same_token(signature, self._sign(f"{identity}.{expires}")) or int(expires) < self._clock():
            return None
        return Session(identity, self._sign(f"csrf.{identity}"))

    def _cookie(self, identity: str, expires: int) -> str:
        text = f"{identity}.{expires}"
        return f"{text}.{self._sign(text)}"

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def same_token(given: str, wanted: str) -> bool:
    """Compares tokens in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _key(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) != _KEY_BYTES:
        key = secrets.token_bytes(_KEY_BYTES)
        path.unlink(missing_ok=True)
        path.touch(mode=0o600, exist_ok=False)
        path.write_bytes(key)
    return key
