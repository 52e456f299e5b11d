"""Templates, and the words and numbers in them."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from headrace.api.audit.v1.resources_pb2 import LogEntry

FOLDER: Final = Path(__file__).parent / "templates"
NAVIGATION: Final = (
    ("/", "Loop", "l"),
    ("/runs", "Runs", "r"),
    ("/models", "Models", "m"),
    ("/endpoints", "Endpoints", "e"),
    ("/drift", "Drift", "d"),
    ("/pipelines", "Pipelines", "p"),
    ("/events", "Events", "v"),
)


class Pages:
    """Renders the templates."""

    def __init__(self, project: str) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            when=when, ago=ago, short=short, words=words, number=number, duration=duration, bytes=size, event=event_name
        )
        self._environment.globals.update(navigation=NAVIGATION, project=project)

    def render(
        self,
        request: Request,
        template: str,
        *,
        status: HTTPStatus = HTTPStatus.OK,
        **values: Any,  # noqa: ANN401
    ) -> HTMLResponse:
        """A page, or a part of one."""
        session = getattr(request.state, "session", None)
        context = {
            "path": request.url.path,
            "query": dict(request.query_params),
            "csrf": session.csrf if session else "",
        }
        html = self._environment.get_template(template).render({**context, **values})
        return HTMLResponse(html, status_code=status, headers={"Cache-Control": "no-store"})

    def fragment(self, template: str, **values: Any) -> str:  # noqa: ANN401 - what templates take
        """A piece of HTML."""
        return self._environment.get_template(template).render(values)


def when(stamp: Timestamp) -> str:
    """A time, UTC, to the second; empty for none."""
    return f"{stamp.ToDatetime(tzinfo=UTC):%Y-%m-%d %H:%M:%S}" if stamp.seconds else ""


def ago(stamp: Timestamp) -> str:
    """How long ago; empty for no time."""
    if not stamp.seconds:
        return ""
    seconds = max((datetime.now(UTC) - stamp.ToDatetime(tzinfo=UTC)).total_seconds(), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return f"{int(seconds)} s ago"


def duration(start: Timestamp, end: Timestamp) -> str:
    """From start to end, or to now."""
    if not start.seconds:
        return ""
    until = end.ToDatetime(tzinfo=UTC) if end.seconds else datetime.now(UTC)
    seconds = (until - start.ToDatetime(tzinfo=UTC)).total_seconds()
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)} min {int(rest)} s" if minutes else f"{rest:.1f} s"


def short(name: str) -> str:
    """The last part of a resource name."""
    return name.rpartition("/")[2]


def words(enum_name: str, prefix: str) -> str:
    """An enum value for people."""
    return enum_name.removeprefix(prefix).lower().replace("_", " ")


def number(value: float) -> str:
    """Six significant digits; thousands are set apart."""
    if value != value:  # noqa: PLR0124 - NaN
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.6g}"


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def event_name(entry: LogEntry) -> str:
    """``VersionPromoted`` of ``headrace.registry.v1.VersionPromoted``."""
    return entry.type.rpartition(".")[2]
