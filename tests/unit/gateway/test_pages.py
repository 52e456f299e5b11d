"""Words and numbers of the pages."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.orchestrator.v1.events_pb2 import StepFailed
from headrace.api.registry.v1.events_pb2 import VersionPromoted
from headrace.api.registry.v1.resources_pb2 import Promotion
from headrace.cli.entries import line_of
from headrace.story import chain
from headrace_gateway import pages
from headrace_gateway.pages import Pages
from headrace_gateway.told import told
from headrace_gateway.views.home import Causes


def stamp(seconds: float) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(datetime(2013, 7, 1, 12, 30, tzinfo=UTC) + timedelta(seconds=seconds))
    return found


def before_now(seconds: float) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(datetime.now(UTC) - timedelta(seconds=seconds))
    return found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1234567.0, "1\u202f234\u202f567"),
        (-1234.0, "-1\u202f234"),
        (0.1234567, "0.123457"),
        (1e-9, "1e-09"),
        (1e300, "1e+300"),
        (math.inf, "inf"),
        (math.nan, "\u2013"),
    ],
)
def test_numbers_have_six_digits_and_thousands_apart(value: float, text: str) -> None:
    assert pages.number(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"), (5 << 40, "5120.0 GiB")],
)
def test_sizes_take_the_unit_that_fits(count: int, text: str) -> None:
    assert pages.size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.25, "0.2 s"),
        (7, "7 s"),
        (59.4, "59 s"),
        (61, "1 min 1 s"),
        (21600, "6 h"),
        (90061, "1 d 1 h"),
        (1209600, "14 d"),
    ],
)
def test_lengths_of_time_have_two_units_at_most(value: float, text: str) -> None:
    assert pages.seconds(value) == text


def test_a_time_is_shown_in_utc_and_none_as_nothing() -> None:
    assert pages.when(stamp(0)) == "2013-07-01 12:30:00"
    assert pages.iso(stamp(0)) == "2013-07-01T12:30:00Z"
    assert [pages.when(Timestamp()), pages.iso(Timestamp()), pages.ago(Timestamp())] == ["", "", ""]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0 s ago"), (90, "1 min ago"), (7200, "2 h ago"), (200000, "2 d ago")]
)
def test_how_long_ago(seconds: float, text: str) -> None:
    assert pages.ago(before_now(seconds)) == text


def test_a_time_ahead_of_this_clock_is_now() -> None:
    assert pages.ago(before_now(-60)) == "0 s ago"


def test_a_duration_ends_at_its_end_or_now() -> None:
    assert pages.duration(stamp(0), stamp(75)) == "1 min 15 s"
    assert pages.duration(before_now(7200), Timestamp()) == "2 h"
    assert pages.duration(Timestamp(), stamp(0)) == ""


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("projects/p/runs/r1", "/runs/r1"),
        ("projects/p/models/m", "/models/m"),
        ("projects/p/models/m/versions/3", "/models/m/versions/3"),
        ("projects/p/pipelineRuns/x", "/pipelines/runs/x"),
        ("projects/p/monitors/m", "/drift/m"),
        ("projects/p/unheard/of", ""),
        ("projects/p", ""),
        ("", ""),
    ],
)
def test_resources_lead_to_their_pages(name: str, link: str) -> None:
    assert pages.link(name) == link


def test_a_uuid_is_called_by_its_end_and_anything_else_by_its_name() -> None:
    assert pages.label("projects/p/runs/b52ae275-c3a3-4471-9b26-e8943f0cd1f3") == "3f0cd1f3"
    assert pages.label("projects/p/models/flight-delay") == "flight-delay"
    assert pages.kind("projects/p/pipelineRuns/x") == "pipeline run"
    assert pages.kind("odd") == ""


def test_what_comes_from_outside_is_text_in_a_fragment() -> None:
    hostile = "<img src=x onerror=alert(1)>"
    entry = LogEntry(
        event_id="1", type=f"headrace.x.v1.{hostile}", stream_id=f"projects/p/runs/{hostile}", source=hostile
    )
    entry.meta.actor = hostile
    entry.meta.causation_id = hostile

    html = Pages("default").fragment("_entry.html", entry=entry)

    assert "<img" not in html
    assert "&lt;img" in html


def caused_request() -> tuple[LogEntry, LogEntry]:
    """An alert, and the request it led to."""
    alert = LogEntry(event_id="a", type="headrace.monitor.v1.AlertRaised", source="headrace/monitor", hlc=1)
    request = LogEntry(event_id="r", type="headrace.monitor.v1.RetrainRequested", source="headrace/monitor", hlc=2)
    request.meta.causation_id = "a"
    return alert, request


def test_an_event_names_its_cause_where_that_was_shown() -> None:
    alert, request = caused_request()

    shown = Pages("default").fragment("_entry.html", entry=request, causes=Causes([alert]))
    unknown = Pages("default").fragment("_entry.html", entry=request, causes=Causes())

    assert re.search(r'href="/events/a"[^>]*>AlertRaised</a>', shown)
    assert re.search(r'href="/events/a"[^>]*>cause</a>', unknown)


def test_the_story_of_an_event_shows_a_request_below_its_alert() -> None:
    alert, request = caused_request()
    links = chain([request, alert], "r")

    assert [(link.entry.event_id, link.depth) for link in links] == [("a", 0), ("r", 1)]
    assert [line_of(link.entry, depth=link.depth).plain.count("└") for link in links] == [0, 1]


def test_an_event_is_told_by_its_most_telling_fields() -> None:
    moved = VersionPromoted(promotion=Promotion(alias="production", version=3, reason="beats it", revision=9))
    failed = StepFailed(step="train", error_class="ValueError")

    def entry(kind: str, data: bytes) -> LogEntry:
        return LogEntry(type=f"headrace.{kind}", data=data)

    assert told(entry("registry.v1.VersionPromoted", moved.SerializeToString())) == (
        "beats it \u00b7 alias production \u00b7 version 3"
    )
    assert told(entry("orchestrator.v1.StepFailed", failed.SerializeToString())) == "step train \u00b7 ValueError"
    assert told(entry("registry.v1.Unheard", b"")) == ""
    assert told(entry("registry.v1.VersionPromoted", b"\xff")) == ""
