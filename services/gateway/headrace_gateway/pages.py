"""Templates, and the words and numbers in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import orjson
from google.protobuf.timestamp_pb2 import Timestamp
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.gates import sentences
from headrace.past import OWNERS
from headrace.spantrees import took
from headrace_gateway.markdown import Markdown
from headrace_gateway.told import told

FOLDER: Final = Path(__file__).parent / "templates"
NAVIGATION: Final = (
    ("/", "Loop", "l"),
    ("/runs", "Runs", "r"),
    ("/traces", "Traces", "t"),
    ("/models", "Models", "m"),
    ("/endpoints", "Endpoints", "e"),
    ("/drift", "Drift", "d"),
    ("/pipelines", "Pipelines", "p"),
    ("/events", "Events", "v"),
    ("/webhooks", "Webhooks", "w"),
)
"""Path, name, and the key that goes there after ``g``."""
_KINDS: Final = {
    "runs": "/runs/{}",
    "traces": "/traces/{}",
    "models": "/models/{}",
    "pipelineRuns": "/pipelines/runs/{}",
    "endpoints": "/endpoints#{}",
    "monitors": "/drift/{}",
    "pipelines": "/pipelines#{}",
    "experiments": "/runs?experiment={}",
    "alerts": "/drift#{}",
    "webhooks": "/webhooks/{}",
}
_WORDS: Final = {
    "runs": "run",
    "traces": "trace",
    "loggedModels": "logged model",
    "models": "model",
    "pipelineRuns": "pipeline run",
    "endpoints": "endpoint",
    "monitors": "monitor",
    "pipelines": "pipeline",
    "experiments": "experiment",
    "alerts": "alert",
    "policies": "policy",
    "schedules": "schedule",
    "persons": "person",
    "archives": "archived range",
    "webhooks": "webhook",
}
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Pages:
    """Renders the templates.

    Args:
        project: Whose pages.
        named: What people call a principal; empty when that is not known.
    """

    def __init__(self, project: str, named: Callable[[str], str] = lambda _: "") -> None:
        self.named = named
        self._environment = Environment(
            loader=FileSystemLoader(FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters: dict[str, Any] = {
            "needs": sentences,
            "markdown": Markdown(),
            "when": when,
            "iso": iso,
            "micros": micros,
            "ago": ago,
            "short": short,
            "words": words,
            "number": number,
            "duration": duration,
            "seconds": seconds,
            "took": took,
            "bytes": size,
            "value": value,
            "event": event_name,
            "area": area,
            "link": link,
            "past": past,
            "label": label,
            "kind": kind,
            "told": told,
        }
        self._environment.filters.update(filters)
        known: dict[str, Any] = {
            "navigation": NAVIGATION,
            "project": project,
            "command_id": lambda: str(uuid4()),
            "named": named,
        }
        self._environment.globals.update(known)

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
    return f"{_time(stamp):%Y-%m-%d %H:%M:%S}" if stamp.seconds else ""


def iso(stamp: Timestamp) -> str:
    """A time as machines read it; empty for none."""
    return f"{_time(stamp):%Y-%m-%dT%H:%M:%SZ}" if stamp.seconds else ""


def micros(stamp: Timestamp) -> str:
    """A time to the microsecond, as addresses carry it; empty for none."""
    return f"{_time(stamp):%Y-%m-%dT%H:%M:%S.%fZ}" if stamp.seconds else ""


def ago(stamp: Timestamp) -> str:
    """How long ago; empty for no time."""
    if not stamp.seconds:
        return ""
    passed = max((datetime.now(UTC) - _time(stamp)).total_seconds(), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if passed >= length:
            return f"{int(passed // length)} {unit} ago"
    return f"{int(passed)} s ago"


def duration(start: Timestamp, end: Timestamp) -> str:
    """From start to end, or to now."""
    if not start.seconds:
        return ""
    until = _time(end) if end.seconds else datetime.now(UTC)
    return seconds((until - _time(start)).total_seconds())


def seconds(value: float) -> str:
    """A length of time for people."""
    if value < 60:
        return f"{value:.1f} s" if value < 10 and value % 1 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join([f"{count} {unit}" for count, unit in parts if count][:2])


def short(name: str) -> str:
    """The last part of a resource name."""
    return name.rpartition("/")[2]


def words(enum_name: str, prefix: str) -> str:
    """An enum value for people."""
    return enum_name.removeprefix(prefix).lower().replace("_", " ")


def number(value: float) -> str:
    """Six significant digits; thousands are set apart."""
    if value != value:  # noqa: PLR0124 - NaN
        return "\u2013"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.6g}"


def value(found: object) -> str:
    """A value of a field as JSON has it, texts without their quotes; a dash for none."""
    return found if isinstance(found, str) else "\u2013" if found is None else orjson.dumps(found).decode()


def size(count: int) -> str:
    """Bytes for people."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def event_name(entry: LogEntry) -> str:
    """``VersionPromoted`` of ``headrace.registry.v1.VersionPromoted``."""
    return entry.type.rpartition(".")[2]


def area(entry: LogEntry) -> str:
    """``registry`` of ``headrace/registry``."""
    return entry.source.rpartition("/")[2]


def link(name: str) -> str:
    """The console's page about a resource; empty when it has none."""
    parts = name.split("/")
    if len(parts) < 4:
        return ""
    if parts[2] == "models" and len(parts) >= 6 and parts[4] == "versions":
        return f"/models/{parts[3]}/versions/{parts[5]}"
    return _KINDS[parts[2]].format(parts[3]) if parts[2] in _KINDS else ""


def past(name: str) -> str:
    """The console's page about a resource through time; empty when no log has such entities."""
    parts = name.split("/")
    return f"/events/of/{'/'.join(parts[2:])}" if len(parts) > 3 and parts[2] in OWNERS else ""


def label(name: str) -> str:
    """What a resource is called in a table: its id, or the end of it when it is a UUID."""
    found = short(name)
    return found[-8:] if _UUID.fullmatch(found) else found


def kind(name: str) -> str:
    """``run`` of ``projects/p/runs/r``; empty when the kind is not known."""
    parts = name.split("/")
    return _WORDS.get(parts[2], "") if len(parts) > 3 else ""


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)
