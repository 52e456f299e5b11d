"""An HTTP server that webhooks are sent to, on loopback, with answers as a test wants them."""

from __future__ import annotations

import hashlib
import hmac
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came."""

    path: str
    headers: Message
    body: bytes

    @property
    def id(self) -> str:
        return str(self.headers["webhook-id"])

    @property
    def json(self) -> Any:  # Any: whatever JSON it is
        return orjson.loads(self.body)

    def signed_by(self, secret: str) -> bool:
        """Whether one of its signatures is of the secret; written down from Standard Webhooks, not by our code."""
        key = b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
        text = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        wanted = "v1," + b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
        return wanted in str(self.headers["webhook-signature"]).split(" ")


Answering = Callable[[Received], int]


@dataclass(slots=True)
class Receiver:
    """What came, in order; ``answer`` says with which status each is answered."""

    url: str
    answer: Answering = lambda _: 204
    received: list[Received] = field(default_factory=list[Received])

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.received]


@contextmanager
def receiving(answer: Answering = lambda _: 204, *, body: bytes = b"", location: str = "") -> Iterator[Receiver]:
    """A receiver on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            came = Received(self.path, self.headers, content)
            found.received.append(came)
            self.send_response(found.answer(came))
            if location:
                self.send_header("location", location)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that went away is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    found = Receiver(f"http://127.0.0.1:{server.server_port}/hook", answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
