"""Paths of artifacts as clients send them: where each leads, and which are refused.

Nothing here reaches a file system: a path names an entry of a run's, a logged model's or a version's list of files. It
is decoded once, by the HTTP server; what still holds ``%2e`` afterwards is a name with a percent sign in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from headrace_gateway.mlflow_api.errors import MlflowError

SCHEME: Final = "mlflow-artifacts:"
PROXY: Final = "/api/2.0/mlflow-artifacts/artifacts/"
MAX_PATH: Final = 500
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads.

    Attributes:
        kind: ``run``, ``model`` (a logged one) or ``version``.
        owner: Id of the run or logged model; ``name/number`` of a version.
        path: Within it; empty for its root.
    """

    kind: str
    owner: str
    path: str


def place_of(path: str) -> Place:
    """Where the path of a proxied artifact leads. Raises MlflowError for one that leads nowhere, or could lead out."""
    parts = safe(path).split("/")
    match parts:
        case ["models", name, "versions", number, *rest]:
            return Place("version", f"{name}/{number}", "/".join(rest))
        case [experiment, "models", model, "artifacts", *rest] if experiment.isdecimal():
            return Place("model", model, "/".join(rest))
        case [experiment, run, "artifacts", *rest] if experiment.isdecimal():
            return Place("run", run, "/".join(rest))
        case _:
            raise MlflowError(f"Invalid path: {path[:200]!r} is no place of artifacts.")


def safe(path: str) -> str:
    """The path, if it is relative, of whole parts, and says what it is. Raises MlflowError otherwise."""
    parts = path.split("/")
    unsafe = any(part in ("", ".", "..") for part in parts) or "\\" in path or _CONTROL.search(path)
    if unsafe or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", path):
        raise MlflowError(f"Invalid path: {path[:200]!r}")
    return path


def place_of_source(source: str) -> Place:
    """Where the source of a model version leads: to files of this platform, or nowhere. Raises MlflowError."""
    if source.startswith("runs:/"):
        run, _, path = safe(source.removeprefix("runs:/")).partition("/")
        return Place("run", run, path)
    if source.startswith("models:/m-"):
        return Place("model", safe(source.removeprefix("models:/")), "")
    if source.startswith(SCHEME):
        # Between scheme and path there may be a host: the client's own word for this server.
        rest = source.removeprefix(SCHEME)
        path = rest[2:].partition("/")[2] if rest.startswith("//") else rest.removeprefix("/")
        return place_of(path)
    if source.startswith(("http://", "https://")) and PROXY in source:
        return place_of(source.partition(PROXY)[2])
    raise MlflowError(
        f"Invalid model version source: '{source[:200]}'. Log the model to headrace first: a version is made of "
        "artifacts that lie here (runs:/, models:/m-..., mlflow-artifacts:/)."
    )
