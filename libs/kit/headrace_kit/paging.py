"""Pages of lists: sizes and tokens. A token is opaque, and good for the query it came from only."""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from headrace_kit.errors import InvalidArgument

_DIGEST: Final = 8


@dataclass(frozen=True, slots=True)
class Page:
    """What to read: ``limit`` entries after ``after`` (empty at the start)."""

    after: str
    limit: int
    _query: bytes

    def token(self, last: str, *, count: int) -> str:
        """The token of the next page when this one, with ``count`` entries, was full; empty at the end."""
        if count < self.limit:
            return ""
        return base64.urlsafe_b64encode(self._query + last.encode()).decode()


def page_of(request: Message, *, default: int = 100, most: int = 1000) -> Page:
    """The page a request asks for by its ``page_size`` and ``page_token``.

    Raises:
        InvalidArgument: The size is out of range, or the token is not of this query.
    """
    # Any: every list request has these two fields; protobuf has no name for that.
    size: int = getattr(request, "page_size")  # noqa: B009 - see above
    token: str = getattr(request, "page_token")  # noqa: B009 - see above
    if not 0 <= size <= most:
        raise InvalidArgument(f"give 1 to {most}, or 0 for {default}", field="page_size")
    query = type(request)()
    query.CopyFrom(request)
    query.ClearField("page_size")
    query.ClearField("page_token")
    digest = hashlib.sha256(query.SerializeToString(deterministic=True)).digest()[:_DIGEST]
    after = ""
    if token:
        try:
            raw = base64.b64decode(token, altchars=b"-_", validate=True)
            given, after = raw[:_DIGEST], raw[_DIGEST:].decode()
        except (binascii.Error, ValueError):
            given = b""
        if given != digest:
            raise InvalidArgument("this token does not belong to this query", field="page_token")
    return Page(after, size or default, digest)
