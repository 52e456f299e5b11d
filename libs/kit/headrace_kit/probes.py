"""``/metrics``, ``/healthz`` and ``/readyz`` over HTTP/1.0, one request a connection: for scrapers inside only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from headrace_kit.errors import Unavailable

REQUEST_TIMEOUT_S: Final = 5.0
MAX_REQUEST_BYTES: Final = 16 * 1024
_TEXT: Final = "text/plain; charset=utf-8"
_BROKEN: Final = (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


class Probes:
    """Answers probes of one process.

    Args:
        reasons: Says why the process is not ready; empty when it is.
        refresh: Called before metrics are read.
    """

    def __init__(
        self, reasons: Callable[[], Awaitable[Sequence[str]]], refresh: Sequence[Callable[[], None]] = ()
    ) -> None:
        self._reasons, self._refresh = reasons, refresh
        self._server: asyncio.Server | None = None
        self.port = 0
        """The port that is listened on."""

    async def start(self, listen: str) -> None:
        """Listens on ``host:port``; port 0 takes a free one.

        Raises:
            Unavailable: the address can not be listened on.
        """
        host, _, port = listen.rpartition(":")
        try:
            self._server = await asyncio.start_server(self._serve, host, int(port), limit=MAX_REQUEST_BYTES)
        except OSError as error:
            raise Unavailable(f"{listen} can not be listened on: is it taken?", reason="ADDRESS_IN_USE") from error
        self.port = int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Stops listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(*_BROKEN):
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                words = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
                code, kind, body = await self._answer(*words[:2]) if len(words) == 3 else _status("400 Bad Request")
                head = f"HTTP/1.0 {code}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + (b"" if words[0] == b"HEAD" else body))
                await writer.drain()
        writer.close()

    async def _answer(self, method: bytes, target: bytes) -> tuple[str, str, bytes]:
        if method not in (b"GET", b"HEAD"):
            return _status("405 Method Not Allowed")
        match target.partition(b"?")[0]:
            case b"/metrics":
                for refresh in self._refresh:
                    refresh()
                return "200 OK", CONTENT_TYPE_LATEST, generate_latest()
            case b"/healthz":
                return "200 OK", _TEXT, b"alive\n"
            case b"/readyz":
                reasons = await self._reasons()
                if reasons:
                    return "503 Service Unavailable", _TEXT, ("\n".join(reasons) + "\n").encode()
                return "200 OK", _TEXT, b"ready\n"
            case _:
                return _status("404 Not Found")


def _status(code: str) -> tuple[str, str, bytes]:
    return code, _TEXT, b"GET /metrics, /healthz or /readyz\n"
