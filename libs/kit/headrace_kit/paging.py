"""Pages of lists: sizes and tokens. A token is opaque, and good for the query it came from only.

Tokens are sealed (HMAC), so what a servicer reads from one is what it wrote into it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from headrace_kit.auth import seal_key
from headrace_kit.errors import InvalidArgument

MAX_TOKEN: Final = 12_000
"""Longest token that is looked at."""
_SEAL: Final = 16


@dataclass(frozen=True, slots=True)
class Page:
    """What to read: ``limit`` entries after ``after`` (empty at the start)."""

    after: str
    limit: int
    _query: bytes

    def token(self, last: str, *, count: int) -> str:
        """The token of the next page when this one, with ``count`` entries, was full; empty at the end.

        Args:
            last: Where the next page goes on; its ``after``.
            count: Entries of this page.
        """
        if count < self.limit:
            return ""
        return base64.urlsafe_b64encode(_seal(self._query, last.encode()) + last.encode()).decode()


def page_of(request: Message, *, default: int = 100, most: int = 1000) -> Page:
    """The page a request asks for by its ``page_size`` and ``page_token``.

    Args:
        request: Any message with these two fields; its other fields are the query.
        default: Entries when the size is 0.
        most: Largest size.

    Raises:
        InvalidArgument: the size is out of range, or the token is not of this query.
    """
    # Every list request has these two fields; protobuf has no name for that.
    size: int = getattr(request, "page_size")  # noqa: B009 - see above
    token: str = getattr(request, "page_token")  # noqa: B009 - see above
    if not 0 <= size <= most:
        raise InvalidArgument(f"give 1 to {most}, or 0 for {default}", field="page_size")
    query = _digest(request)
    return Page(_opened(token, query) if token else "", size or default, query)


def _digest(request: Message) -> bytes:
    query = type(request)()
    query.CopyFrom(request)
    query.ClearField("page_size")
    query.ClearField("page_token")
    name: str = request.DESCRIPTOR.full_name
    return hashlib.sha256(name.encode() + b"\0" + query.SerializeToString(deterministic=True)).digest()


def _seal(query: bytes, after: bytes) -> bytes:
    return hmac.digest(seal_key(), query + after, "sha256")[:_SEAL]


def _opened(token: str, query: bytes) -> str:
    try:
        raw = base64.b64decode(token[:MAX_TOKEN].encode("ascii"), altchars=b"-_", validate=True)
        sealed, after = raw[:_SEAL], raw[_SEAL:]
        if hmac.compare_digest(sealed, _seal(query, after)):
            return after.decode()
    except (binascii.Error, ValueError):
        pass
    raise InvalidArgument("this token does not belong to this query; begin again without one", field="page_token")
