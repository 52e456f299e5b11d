"""Passwords and tokens: made once, kept in 0600 files, handed to each process by file or environment."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path

from headrace_local.files import write_atomic
from headrace_local.folder import DataFolder
from headrace_local.tokens import TokensFile

OPERATOR = "operator"


class Credentials:
    """The secrets of one data folder. What is missing is made when asked for."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder

    def password(self, name: str) -> str:
        """Return the password called ``name`` (a database role, the object store's key): 48 hex digits."""
        return self._secret(f"{name}.password")

    def token_file(self, name: str) -> Path:
        """Return the file that holds the token of ``operator`` or of a service."""
        self._secret(f"{name}.token")
        return self._folder.secrets / f"{name}.token"

    def write_tokens(self, services: Iterable[str]) -> None:
        """Write the digests of these tokens, from which servers verify callers; what others added there stays.

        Raises:
            TokensUnreadable: the file is there and not of its form.
        """
        entries = [self._entry(OPERATOR, f"persons/{OPERATOR}", OPERATOR)]
        entries += [self._entry(service, f"services/{service}", "service") for service in services]
        TokensFile(self._folder.tokens).write_own(entries)

    def console_link(self, gateway_url: str) -> str:
        """Return a link that opens the console once, or an empty string when there is no gateway.

        The code in it is fresh, and the one before no longer good; only its digest is kept, where the gateway finds it.
        """
        if not gateway_url:
            return ""
        code = secrets.token_urlsafe(24)
        write_atomic(self._folder.console_code, hashlib.sha256(code.encode()).hexdigest().encode())
        return f"{gateway_url}/enter?code={code}"

    def _entry(self, name: str, principal: str, role: str) -> dict[str, object]:
        token = self.token_file(name).read_bytes()
        return {"sha256": hashlib.sha256(token).hexdigest(), "principal": principal, "roles": [role]}

    def _secret(self, filename: str) -> str:
        path = self._folder.secrets / filename
        if not path.exists():
            write_atomic(path, secrets.token_hex(24).encode())
        return path.read_text()
