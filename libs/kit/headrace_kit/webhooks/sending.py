"""One attempt to deliver a payload.

The host is looked up here, each address is judged, and the connection goes to one of those judged: a name that means
something else a moment later leads nowhere. No redirect is followed, no proxy used, and of the answer little is read.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headrace_kit.errors import InvalidArgument
from headrace_kit.webhooks.targets import Allowed, Target, parse_target, refusal

AGENT: Final = "headrace-webhooks/1"
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt.

    Attributes:
        status: HTTP status; 0 when there was no answer.
        body: The beginning of the answer, as text.
        error: Why it failed, in a sentence; empty when it did not.
    """

    status: int = 0
    body: str = ""
    error: str = ""

    @property
    def delivered(self) -> bool:
        """Whether the target took the payload."""
        return not self.error


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, as the system knows them. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for _, _, _, _, address in found))


class Sender:
    """Sends payloads. Safe for many tasks of one loop; keeps no connection.

    Args:
        allowed: What may be called beside the internet.
        timeout_s: Most seconds for one attempt, from the look-up to the last byte.
        find: Looks hosts up.
    """

    def __init__(self, allowed: Allowed, *, timeout_s: float, find: Resolve = resolve) -> None:
        self.timeout_s = timeout_s
        self._allowed, self._find = allowed, find

    async def check(self, url: str, *, field: str) -> Target:
        """The target of a URL that may be called now.

        Raises:
            InvalidArgument: It is no such URL, its host is not known, or one of its addresses is not allowed.
        """
        target = parse_target(url, field=field)
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._addresses(target, field=field)
        except TimeoutError:
            raise _unknown(target, field=field) from None
        return target

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POSTs a body. Whatever the target does, or does not, is in the answer."""
        try:
            async with asyncio.timeout(self.timeout_s):
                target = parse_target(url, field="url")
                addresses = await self._addresses(target, field="url")
                return await _post(target, addresses, body, {"user-agent": AGENT, **headers})
        except TimeoutError:
            return Answer(error=f"no answer within {self.timeout_s:g} s")
        except InvalidArgument as error:
            return Answer(error=error.message)

    async def _addresses(self, target: Target, *, field: str) -> Sequence[str]:
        try:
            found = await self._find(target.host, target.port)
        except (OSError, UnicodeError):
            found = ()
        if not found:
            raise _unknown(target, field=field)
        for each in found:
            why = refusal(each, host=target.host, allowed=self._allowed)
            if why:
                message = f"{target.host} leads to an address that is {why}; the operator may allow it"
                raise InvalidArgument(message, field=field, reason="TARGET_REFUSED")
        return found


async def _post(target: Target, addresses: Sequence[str], body: bytes, headers: Mapping[str, str]) -> Answer:
    from headrace_kit.webhooks.posting import PostFailed, post  # noqa: PLC0415 - 5 MiB that an idle service does without

    try:
        status, content = await post(target, addresses, body, headers)
    except PostFailed as error:
        return Answer(error=str(error))
    text = content.decode(errors="replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")
    if 200 <= status < 300:
        return Answer(status, text)
    what = "a redirect, which is not followed" if 300 <= status < 400 else "a refusal"
    return Answer(status, text, f"the target answered with {status}, {what}")


def _unknown(target: Target, *, field: str) -> InvalidArgument:
    return InvalidArgument(f"the host {target.host} is not known", field=field, reason="TARGET_UNKNOWN")
