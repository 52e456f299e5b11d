"""The HTTP of an attempt: aiohttp, wrapped once. Imported when the first payload is sent."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from headrace_kit.webhooks.targets import Target

MAX_ANSWER: Final = 1024
"""Most bytes of an answer that are read."""


class PostFailed(Exception):
    """There was no answer; says why without the URL, whose path may be a secret."""


async def post(target: Target, addresses: Sequence[str], body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """POSTs to one of the addresses; returns status and beginning of the answer. Raises PostFailed."""
    try:
        return await _exchange(target, addresses, body, headers)
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError):
        raise PostFailed("no trusted TLS connection could be made") from None
    except aiohttp.ClientConnectorError as error:
        raise PostFailed(f"no connection: {error.os_error.strerror or 'refused'}") from None
    except aiohttp.ServerDisconnectedError:
        raise PostFailed("the target closed the connection without an answer") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise PostFailed(f"the exchange failed: {type(error).__name__}") from None


async def _exchange(
    target: Target, addresses: Sequence[str], body: bytes, headers: Mapping[str, str]
) -> tuple[int, bytes]:
    connector = aiohttp.TCPConnector(resolver=_Judged(addresses), use_dns_cache=False, force_close=True, limit=1)
    async with (
        aiohttp.ClientSession(
            connector=connector, trust_env=False, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        ) as session,
        session.post(target.url, data=body, headers=headers, allow_redirects=False) as response,
    ):
        content = bytearray()
        while len(content) < MAX_ANSWER and (chunk := await response.content.read(MAX_ANSWER - len(content))):
            content += chunk
        return response.status, bytes(content)


class _Judged(AbstractResolver):
    """Gives the addresses that were judged, whatever the name means by now."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        del family
        return [
            ResolveResult(
                hostname=host,
                host=each,
                port=port,
                family=socket.AF_INET6 if ":" in each else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for each in self._addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""
