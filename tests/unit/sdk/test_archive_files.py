"""A file of the archive is what its digest names, or whoever asked is told which it is and why."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.archive.files import download
from headrace.errors import HeadraceError

CONTENT = b"what was archived"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
REFERENCE = ObjectRef(uri=f"p/sha256/{DIGEST[:2]}/{DIGEST}", sha256=DIGEST, size_bytes=len(CONTENT))


class _Store(BaseHTTPRequestHandler):
    """Answers by the last part of the path."""

    def do_GET(self) -> None:
        status, length, content = {
            "/whole": (200, len(CONTENT), CONTENT),
            "/missing": (404, 0, b""),
            "/broken": (500, 0, b""),
            "/altered": (200, len(CONTENT), b"X" + CONTENT[1:]),
            "/cut": (200, len(CONTENT) - 1, CONTENT[:-1]),
            "/longer": (200, len(CONTENT) + 1, CONTENT + b"X"),
            "/ended": (200, len(CONTENT), CONTENT[:3]),
        }[self.path]
        self.send_response(status)
        self.send_header("content-length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Store)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_whole_is_given(store: str) -> None:
    assert download(f"{store}/whole", REFERENCE) == CONTENT


@pytest.mark.parametrize(
    ("what", "reason", "retryable"),
    [
        ("missing", "ARCHIVE_FILE", False),
        ("altered", "ARCHIVE_FILE", False),
        ("cut", "ARCHIVE_FILE", False),
        ("longer", "ARCHIVE_FILE", False),
        ("broken", "ARCHIVE_UNAVAILABLE", True),
        ("ended", "ARCHIVE_UNAVAILABLE", True),
    ],
)
def test_what_is_not_is_named(store: str, what: str, reason: str, retryable: bool) -> None:
    with pytest.raises(HeadraceError) as refused:
        download(f"{store}/{what}", REFERENCE)
    assert (refused.value.reason, refused.value.retryable) == (reason, retryable)
    assert REFERENCE.uri in refused.value.message


def test_a_store_that_is_away_may_be_asked_again() -> None:
    with pytest.raises(HeadraceError) as refused:
        download("http://127.0.0.1:9/whole", REFERENCE)
    assert refused.value.retryable
