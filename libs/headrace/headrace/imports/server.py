"""An MLflow server, read over its REST API; for many threads.

Nothing of MLflow is needed here. Every answer is of another program and is taken as such: types are checked where they
are read, sizes are bounded, and no path that it names reaches a file system.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, unquote, urlencode, urlsplit

import orjson

from headrace.errors import HeadraceError, InvalidArgument

Json = dict[str, Any]  # Any: JSON
R = TypeVar("R")

V2: Final = "/api/2.0/mlflow"
FILES: Final = "/api/2.0/mlflow-artifacts/artifacts"
SCHEME: Final = "mlflow-artifacts:"
PAGE: Final = 1000
MODELS_PAGE: Final = 100
MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
MAX_FILES: Final = 10_000
"""Files that one run may have, there and here."""
MAX_DEPTH: Final = 32
POINTS_PAGE: Final = 25_000
TIMEOUT_S: Final = 120.0
RETRY_S: Final = (0.2, 1.0, 3.0)
_TRANSIENT: Final = (408, 429, 500, 502, 503, 504)
_CHUNK: Final = 1 << 20


class ServerError(HeadraceError):
    """The MLflow server can not be reached, or refused; ``status`` is that of HTTP, 0 without an answer."""

    default_reason = "MLFLOW_SERVER"

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class MlflowServer:
    """Reads one server. A context manager, which closes its connections at the end.

    Args:
        url: Its tracking URI, ``http://`` or ``https://``; a name and password in it are taken out.
        token: Sent as a bearer token; goes before a name and password.
        username: With ``password``, sent as basic authentication.
        password: See ``username``.
        timeout_s: How long one answer may take.

    Raises:
        InvalidArgument: The URL is none of HTTP.
    """

    def __init__(
        self, url: str, *, token: str = "", username: str = "", password: str = "", timeout_s: float = TIMEOUT_S
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidArgument(f"give the http:// or https:// address of an MLflow server, not {url!r}", field="url")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._netloc = f"{host}:{parts.port}" if parts.port else host
        self._prefix, self._secure, self._timeout_s = parts.path.rstrip("/"), parts.scheme == "https", timeout_s
        self.url = f"{parts.scheme}://{self._netloc}{self._prefix}"
        """Where it is, without name and password."""
        self._headers = _authorization(
            token, username or unquote(parts.username or ""), password or unquote(parts.password or "")
        )
        self._idle, self._lock = list[HTTPConnection](), threading.Lock()

    def close(self) -> None:
        """Closes the connections that nobody uses."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, endpoint: str, /, **query: str | int) -> Json:
        """The answer to a GET. Raises ServerError."""
        given = {name: value for name, value in query.items() if value not in ("", None)}
        return self._json("GET", f"{endpoint}?{urlencode(given)}" if given else endpoint, None)

    def post(self, path: str, body: Json) -> Json:
        """The answer to a POST, which asks for something here and changes nothing. Raises ServerError."""
        return self._json("POST", path, orjson.dumps(body))

    def pages(self, method: str, path: str, key: str, *, size: int = PAGE, **given: Any) -> Iterator[Json]:  # noqa: ANN401 - JSON
        """What all pages of a search list under ``key``."""
        token, seen = "", set[str]()
        while True:
            asked = {**given, "max_results": size, **({"page_token": token} if token else {})}
            answer = self.get(path, **asked) if method == "GET" else self.post(path, asked)
            yield from objects(answer, key)
            token = text(answer, "next_page_token")
            if not token:
                return
            if token in seen:
                raise ServerError(f"{self.url}{path} gives the same page again and again")
            seen.add(token)

    def history(self, run_id: str, key: str) -> Iterator[Json]:
        """Every point of a metric."""
        path, given = f"{V2}/metrics/get-history", {"run_id": run_id, "metric_key": key}
        try:
            yield from self.pages("GET", path, "metrics", size=POINTS_PAGE, **given)
        except ServerError as error:
            if error.status not in (400, 501):
                raise
            yield from objects(self.get(path, **given), "metrics")  # a store that knows no pages

    def files(self, uri: str, *, run_id: str = "") -> list[File]:
        """Files below the root of a run, a logged model or a version, by path.

        Raises:
            ServerError: The server gives none of them out, or its answers make no sense.
        """
        root, _, _ = uri.partition("?")
        if root.startswith(SCHEME):
            return self._listed(lambda folder: self._proxied(self._place(root), folder))
        if run_id:
            return self._listed(lambda folder: self._of_run(run_id, folder))
        raise ServerError(f"its files lie at {root[:200]}, which the server does not give out")

    def fetch(self, file: File, target: Path) -> None:
        """Writes the bytes of a file. Raises ServerError."""
        self._repeated(lambda: self._write(file, target))

    def _write(self, file: File, target: Path) -> None:
        with target.open("wb") as out, self._asked("GET", file.where, None) as answer:
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
            if answer.length:  # what the server said it would still send
                raise HTTPException(f"{answer.length} bytes are missing")

    def _answer(self, method: str, path: str, body: bytes | None) -> bytes:
        with self._asked(method, path, body) as answer:
            content = answer.read(MAX_ANSWER_BYTES + 1)
        if len(content) > MAX_ANSWER_BYTES:
            raise ServerError(f"{self.url}{path} answers more than {MAX_ANSWER_BYTES} bytes")
        return content

    def _repeated(self, ask: Callable[[], R]) -> R:
        """Asks, and asks again after what may pass. Raises ServerError."""
        for pause in (*RETRY_S, None):
            try:
                return ask()
            except (OSError, HTTPException) as error:
                if pause is None:
                    raise ServerError(f"{self.url} can not be reached: {error}") from error
            except ServerError as error:
                if pause is None or error.status not in _TRANSIENT:
                    raise
            time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _listed(self, entries: Any) -> list[File]:  # noqa: ANN401 - a function of a folder
        found: list[File] = []
        waiting = [("", 0)]
        while waiting:
            folder, depth = waiting.pop()
            for file, is_folder in entries(folder):
                if is_folder and depth < MAX_DEPTH:
                    waiting.append((file.path, depth + 1))
                elif not is_folder:
                    found.append(file)
            if len(found) + len(waiting) > MAX_FILES:
                raise ServerError(f"more than {MAX_FILES} files")
        return sorted(found, key=lambda file: file.path)

    def _proxied(self, root: str, folder: str) -> Iterator[tuple[File, bool]]:
        path = f"{root}/{folder}" if folder else root
        for each in objects(self.get(FILES, path=path), "files"):
            name = _name(text(each, "path"))
            below = f"{folder}/{name}" if folder else name
            yield File(below, integer(each, "file_size"), f"{FILES}/{quote(f'{root}/{below}')}"), flag(each, "is_dir")

    def _of_run(self, run_id: str, folder: str) -> Iterator[tuple[File, bool]]:
        for each in objects(self.get(f"{V2}/artifacts/list", run_id=run_id, path=folder), "files"):
            name = _name(text(each, "path"))
            below = f"{folder}/{name}" if folder else name
            where = f"/get-artifact?{urlencode({'run_uuid': run_id, 'path': below})}"
            yield File(below, integer(each, "file_size"), where), flag(each, "is_dir")

    def _place(self, uri: str) -> str:
        """The path of a proxied root. A host in it is the server's own word for itself, or somebody else."""
        rest = uri.removeprefix(SCHEME)
        if rest.startswith("//"):
            host, _, rest = rest[2:].partition("/")
            if host and host != self._netloc:
                raise ServerError(f"its files lie on another server, {host[:200]}")
        return rest.strip("/")

    def _json(self, method: str, path: str, body: bytes | None) -> Json:
        content = self._repeated(lambda: self._answer(method, path, body))
        try:
            found = orjson.loads(content)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            raise ServerError(f"{self.url}{path} answers no JSON object: is it an MLflow server?")
        return found

    @contextmanager
    def _asked(self, method: str, path: str, body: bytes | None) -> Iterator[HTTPResponse]:
        """An answer to be read to its end; then the connection is kept for whoever asks next."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            kind = HTTPSConnection if self._secure else HTTPConnection
            connection = kind(self._netloc, timeout=self._timeout_s)
        try:
            headers = {**self._headers, **({"Content-Type": "application/json"} if body is not None else {})}
            connection.request(method, f"{self._prefix}{path}", body=body, headers=headers)
            with connection.getresponse() as answer:
                if answer.status != HTTPStatus.OK:
                    raise self._refused(answer, path)
                yield answer
                finished = answer.isclosed()
        except BaseException:
            connection.close()
            raise
        if not finished:
            connection.close()
            return
        with self._lock:
            self._idle.append(connection)

    def _refused(self, answer: HTTPResponse, path: str) -> ServerError:
        content = answer.read(4000)
        try:
            said = str(orjson.loads(content)["message"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            said = content.decode("utf-8", "replace")
        place = path.partition("?")[0]
        return ServerError(f"{self.url}{place} answers {answer.status}: {said[:300]}", status=answer.status)


class File:
    """A file on the server: its ``path`` below its root, ``size_bytes`` as listed, and ``where`` it is fetched."""

    __slots__ = ("path", "size_bytes", "where")

    def __init__(self, path: str, size_bytes: int, where: str) -> None:
        self.path, self.size_bytes, self.where = path, size_bytes, where


def objects(answer: Mapping[str, object], key: str) -> list[Json]:
    """The objects of a list; none where there is no list."""
    found = answer.get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def nested(answer: Mapping[str, object], key: str) -> Json:
    """An object; an empty one where there is none."""
    found = answer.get(key)
    return found if isinstance(found, dict) else {}


def text(answer: Mapping[str, object], *keys: str) -> str:
    """The first text, or number as a text, under one of the keys; empty where there is none."""
    for key in keys:
        found = answer.get(key)
        if isinstance(found, str) or (isinstance(found, int | float) and not isinstance(found, bool)):
            return str(found)
    return ""


def integer(answer: Mapping[str, object], key: str) -> int:
    """A whole number of 64 bits; 0 where there is none."""
    try:
        found = int(text(answer, key) or 0)
    except (ValueError, OverflowError):
        return 0
    return found if -(1 << 63) <= found < 1 << 63 else 0


def flag(answer: Mapping[str, object], key: str) -> bool:
    """Whether something is so."""
    return answer.get(key) is True


def pairs(answer: Mapping[str, object], key: str) -> dict[str, str]:
    """A list of key and value as a mapping."""
    return {text(each, "key"): text(each, "value") for each in objects(answer, key) if text(each, "key")}


def _name(path: str) -> str:
    """The last part of a path as listed. Raises ServerError for one that would lead elsewhere."""
    name = path.rstrip("/").rpartition("/")[2]
    if name in ("", ".", "..") or "\\" in name:
        raise ServerError(f"the server lists a file as {path[:200]!r}")
    return name


def _authorization(token: str, username: str, password: str) -> dict[str, str]:
    if token:
        return {"Authorization": f"Bearer {token}"}
    if username:
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    return {}
