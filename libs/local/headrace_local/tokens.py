"""The file of tokens by which servers verify callers: digests of tokens, whose they are, and their roles.

What the stack makes for itself (the operator and its services) it writes anew at each start; every other entry is an
operator's, and is left as it is. ``headrace_kit.auth.Tokens`` reads the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Final, cast

from headrace_kit.auth import OPERATOR, SERVICE, is_principal
from headrace_local.errors import TokensUnchanged, TokensUnreadable
from headrace_local.files import write_json
from headrace_local.names import SERVICES

STACK: Final = frozenset({f"persons/{OPERATOR}", *(f"services/{name}" for name in SERVICES)})
"""Principals of the stack's own."""

Entry = dict[str, object]
"""``{"sha256": hex, "principal": id, "roles": [role]}``, and whatever else was written by hand."""


class TokensFile:
    """One such file. Changes are made one after the other, and each is seen whole or not at all.

    Args:
        path: The file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> list[Entry]:
        """What is in it; nothing when there is no file.

        Raises:
            TokensUnreadable: it is not of its form.
        """
        try:
            found: object = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise TokensUnreadable(f"{self._path} can not be read: {error}") from error
        if not isinstance(found, list) or not all(_is_entry(each) for each in found):
            raise TokensUnreadable(f"{self._path} is no list of digests with their principals and roles")
        return cast("list[Entry]", found)

    def write_own(self, own: Iterable[Entry]) -> None:
        """Writes the stack's own entries; those of other principals stay.

        Raises:
            TokensUnreadable: the file is not of its form; nothing is changed.
        """
        mine = list(own)
        principals = {each["principal"] for each in mine}
        with self._locked():
            self._write([*mine, *(each for each in self.entries() if each["principal"] not in principals)])

    def issue(self, principal: str, *, roles: Iterable[str] = ()) -> str:
        """Makes a token, which is kept nowhere, and lets it in; those that the principal has already stay good.

        Raises:
            TokensUnchanged: the principal is not opaque, or one of the stack's own, or a person who would be a service.
            TokensUnreadable: the file is not of its form.
        """
        if not is_principal(principal):
            raise TokensUnchanged(f"{principal} is no principal: persons/ID or services/NAME, of a-z 0-9 -")
        given = sorted(set(roles))
        if SERVICE in given and principal.startswith("persons/"):
            # Whoever is a service says in whose name it acts, and is believed.
            raise TokensUnchanged(f"{principal} can not have the role {SERVICE}: that is for services/NAME")
        token = secrets.token_hex(24)
        with self._locked():
            _require_foreign(principal)
            digest = hashlib.sha256(token.encode()).hexdigest()
            self._write([*self.entries(), {"sha256": digest, "principal": principal, "roles": given}])
        return token

    def revoke(self, principal: str, *, digest: str = "") -> int:
        """Lets a principal's tokens in no more, or only that whose digest begins so; returns how many they were.

        Raises:
            TokensUnchanged: there is none, or the principal is one of the stack's own.
            TokensUnreadable: the file is not of its form.
        """
        with self._locked():
            _require_foreign(principal)
            before = self.entries()
            after = [
                each
                for each in before
                if each["principal"] != principal or not str(each["sha256"]).startswith(digest.lower())
            ]
            if len(after) == len(before):
                raise TokensUnchanged(f"{principal} has no such token in {self._path}")
            self._write(after)
        return len(before) - len(after)

    def _write(self, entries: list[Entry]) -> None:
        # Who made the file said who may read it: in Compose, services read it as another user.
        mode = self._path.stat().st_mode & 0o777 if self._path.exists() else 0o600
        write_json(self._path, entries, mode=mode)

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """One change at a time; the lock is the folder's, since the file is replaced."""
        descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _require_foreign(principal: str) -> None:
    if principal in STACK:
        raise TokensUnchanged(f"{principal} is the stack's own: delete its file in secrets/ and start the stack anew")


def _is_entry(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    entry = cast("Entry", value)
    digest, principal, roles = entry.get("sha256"), entry.get("principal"), entry.get("roles")
    return isinstance(digest, str) and isinstance(principal, str) and isinstance(roles, list)
