"""The form in which a person sets gates: a kind of gate is one entry of a table, in the words of the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.errors import InvalidArgument as Unreadable
from headrace.gatewords import (
    contest,
    persons,
    replay,
    seconds,
    threshold,
    written_age,
    written_contest,
    written_persons,
    written_replay,
    written_threshold,
)
from headrace_kit.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of gate.

    Attributes:
        path: Field of ``Gates``, and name of the form's field.
        title: What it asks for.
        says: When it lets a version pass.
        shape: ``lines`` for one gate a line, ``text`` for one, ``message`` for one that may be missing, ``tick`` for
            yes or no.
        example: How it is written.
        read: A line as the value that ``Gates`` keeps. Raises headrace.errors.InvalidArgument.
        write: What ``read`` reads as a value.
    """

    path: str
    title: str
    says: str
    shape: Literal["lines", "text", "message", "tick"] = "tick"
    example: str = ""
    read: Callable[[str], Any] = bool  # Any: each kind keeps values of a type of its own
    write: Callable[[Any], str] = lambda value: "on" if value else ""


KINDS: Final = (
    Kind(
        "required_checks",
        "Checks",
        "The newest result of the check passed.",
        "lines",
        "quality",
        str,
        str,
    ),
    Kind(
        "metrics",
        "Thresholds",
        "The metric the version was registered with, or CHECK/METRIC of a check's newest result, is on the right side.",
        "lines",
        "rmse<=25\nholdout/rmse<=24",
        threshold,
        written_threshold,
    ),
    Kind(
        "champion",
        "Better than the champion",
        "By the margin, or by anything at all, in results of checks on the same data; < for less, > for more.",
        "lines",
        "rmse<0.5\nauc>",
        contest,
        written_contest,
    ),
    Kind(
        "approvals",
        "Persons who approved it",
        "So many approved the version itself; with a role, so many who had it. Its author never counts.",
        "lines",
        "1:reviewer\n2",
        persons,
        written_persons,
    ),
    Kind(
        "max_age_s",
        "Oldest version",
        "It was registered no longer ago.",
        "text",
        "30d",
        seconds,
        written_age,
    ),
    Kind(
        "max_run_age_s",
        "Oldest run",
        "Its run was begun no longer ago.",
        "text",
        "90d",
        seconds,
        written_age,
    ),
    Kind(
        "replay",
        "Logged requests answered again",
        "So many of the last (headrace replay), without an error, within the bound, no longer ago than that.",
        "message",
        "1000:max_difference<=0.5@7d",
        replay,
        written_replay,
    ),
    Kind("signed_package_required", "Signed", "A trusted key signed the package; unsigned ones are not loaded."),
    Kind("safe_format_required", "Safe format", "The package is ONNX or skops, or another person consented to it."),
    Kind("compatible_signature_required", "Compatible signature", "It takes what the champion takes."),
    Kind(
        "approval_required",
        "Approval",
        "A person approved it, or a standing approval. Without, whoever sets these gates vouches for what passes them.",
    ),
)
"""Every kind, in the order of the form."""


def gates_of(form: Mapping[str, str], alias: str) -> resources.Gates:
    """The gates that a form asks for. Raises InvalidArgument with the kind's path as its field."""
    gates = resources.Gates(alias=alias)
    for kind in KINDS:
        text = form.get(kind.path, "").strip()
        if kind.shape == "lines":
            lines = [each.strip() for each in text.splitlines() if each.strip()]
            getattr(gates, kind.path).extend([_read(kind, each) for each in lines])
        elif kind.shape == "message":
            if text:
                getattr(gates, kind.path).CopyFrom(_read(kind, text))
        else:
            setattr(gates, kind.path, _read(kind, text))
    return gates


def texts_of(gates: resources.Gates) -> dict[str, str]:
    """What the form's fields hold for gates."""
    values = {kind: getattr(gates, kind.path) for kind in KINDS}
    return {
        kind.path: "\n".join(map(kind.write, value)) if kind.shape == "lines" else kind.write(value)
        for kind, value in values.items()
    }


def field_of(path: str) -> str:
    """The form's field that a refusal is about: ``metrics`` of ``gates.metrics[0].metric``; empty for none of them."""
    named = path.removeprefix("gates.").partition("[")[0].partition(".")[0]
    return named if any(each.path == named for each in KINDS) else ""


def _read(kind: Kind, text: str) -> Any:  # noqa: ANN401 - see Kind.read
    try:
        return kind.read(text)
    except Unreadable as error:
        raise InvalidArgument(f"{kind.title}: {error.message}", field=kind.path) from None
