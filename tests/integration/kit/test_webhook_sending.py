"""One attempt at a webhook, to servers that mean no good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from headrace_kit.webhooks import Allowed, Sender
from headrace_kit.webhooks.posting import MAX_ANSWER
from tests.support.receiving import receiving

LOOPBACK = Allowed.parse("127.0.0.1")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(closing, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


async def test_a_redirect_is_not_followed() -> None:
    with receiving() as inside, receiving(lambda _: 307, location=inside.url) as outside:
        answer = await Sender(LOOPBACK, timeout_s=5).send(outside.url, b"{}", {})

    assert (answer.delivered, answer.status) == (False, 307)
    assert inside.received == []


async def test_a_name_that_means_something_else_a_moment_later_leads_nowhere() -> None:
    """The connection goes to the address that was judged: it is looked up once."""
    looked_up: list[str] = []

    async def find(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"] if len(looked_up) == 1 else ["127.0.0.2"]

    with receiving() as receiver:
        url = receiver.url.replace("127.0.0.1", "rebinding.example")
        answer = await Sender(LOOPBACK, timeout_s=5, find=find).send(url, b"{}", {})
        assert answer.delivered
        assert receiver.received[0].headers["host"].startswith("rebinding.example:")
        assert looked_up == ["rebinding.example"]
        again = await Sender(LOOPBACK, timeout_s=5, find=find).send(url, b"{}", {})

    assert "loopback" in again.error
    assert len(receiver.received) == 1


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, receiving() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        answer = await Sender(LOOPBACK, timeout_s=5).send(receiver.url, b"{}", {})

    assert answer.delivered
    assert (len(receiver.received), proxy.received) == (1, [])


async def test_an_answer_without_end_is_read_to_its_limit() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await writer.drain()

    async with serving(endless) as url:
        answer = await Sender(LOOPBACK, timeout_s=20).send(url, b"{}", {})

    assert (answer.delivered, len(answer.body)) == (True, MAX_ANSWER)


async def test_headers_without_end_are_refused() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nx: ")
        while True:
            writer.write(b"x" * 4096)
            await writer.drain()

    async with serving(endless) as url:
        answer = await Sender(LOOPBACK, timeout_s=20).send(url, b"{}", {})

    assert not answer.delivered


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1"])
async def test_a_target_that_drips_is_left_in_time(sent: bytes) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await reader.read()

    async with serving(drip) as url, asyncio.timeout(10):
        answer = await Sender(LOOPBACK, timeout_s=0.2).send(url, b"{}", {})

    assert answer.error == "no answer within 0.2 s"


async def test_what_went_wrong_is_told_without_the_url() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async def speak_otherwise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH\r\n")

    async def unknown(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    sender = Sender(LOOPBACK, timeout_s=5)
    async with serving(close) as closing, serving(speak_otherwise) as other:
        answers = [
            await sender.send(f"{closing}s3cret", b"{}", {}),
            await sender.send(f"{other}s3cret", b"{}", {}),
            await sender.send(closing.replace("http:", "https:") + "s3cret", b"{}", {}),
            await Sender(LOOPBACK, timeout_s=5, find=unknown).send("http://x.example/s3cret", b"{}", {}),
        ]
    answers.append(await sender.send(f"{closing}s3cret", b"{}", {}))  # nobody listens there any more

    assert all(each.error and not each.status for each in answers)
    assert not any("s3cret" in each.error for each in answers)
