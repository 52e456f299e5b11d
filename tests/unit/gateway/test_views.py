"""What the pages compute: comparison, layers of a pipeline, series of a monitor, moves of aliases, searches."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, datetime

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from starlette.datastructures import QueryParams

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.common.v1.resources_pb2 import DatasetVersion
from headrace.api.monitor.v1 import resources_pb2 as monitor
from headrace.api.orchestrator.v1 import resources_pb2 as orchestrator
from headrace.api.registry.v1 import resources_pb2 as registry
from headrace.api.tracking.v1 import resources_pb2 as tracking
from headrace.api.tracking.v1.service_pb2 import MetricSeries
from headrace_gateway.columns import Column
from headrace_gateway.logs import newest
from headrace_gateway.selecting import Selection
from headrace_gateway.views.charts import lines_response
from headrace_gateway.views.compare import comparison, drawn
from headrace_gateway.views.drift import chart_data
from headrace_gateway.views.events import HEX_BYTES, hex_of, matches, text_of
from headrace_gateway.views.graph import HEIGHT, WIDTH, draw
from headrace_gateway.views.history import Asked, changed_fields, moment_of
from headrace_gateway.views.models import aliases, moves
from headrace_gateway.views.pipelines import graph, layers, needed
from headrace_gateway.views.runs import place_of
from headrace_kit.errors import InvalidArgument


def run(**metrics: float) -> tracking.Run:
    return tracking.Run(metrics={key: tracking.MetricSummary(last=value, count=1) for key, value in metrics.items()})


def test_a_comparison_has_a_row_for_each_name_that_any_run_has() -> None:
    first, second = run(loss=0.5), run(loss=0.5, f1=0.9)
    first.params["depth"] = "4"
    second.params["depth"] = "6"
    second.datasets.append(DatasetVersion(name="flights", digest="sha256:0123456789abcdef"))
    second.code.commit, second.code.dirty = "c" * 40, True

    rows = {(row.kind, row.name): (row.values, row.differs) for row in comparison([first, second])}

    assert rows[("param", "depth")] == (("4", "6"), True)
    assert rows[("metric", "loss")] == (("0.5", "0.5"), False)
    assert rows[("metric", "f1")] == (("", "0.9"), True)
    assert rows[("dataset", "flights")] == (("", "sha256:0123456789ab"), True)
    assert rows[("code", "commit")] == (("", "c" * 12 + " + changes"), True)


def test_the_best_of_a_metric_is_told_and_which_way_is_better() -> None:
    first, second, third = run(loss=0.5, f1=0.9), run(loss=0.4, f1=0.9), run(loss=math.nan)

    rows = {row.name: row for row in comparison([first, second, third])}

    assert (rows["loss"].best, rows["loss"].less) == ((1,), True)
    assert (rows["f1"].best, rows["f1"].less) == ((), False)


def test_a_comparison_takes_the_last_the_least_or_the_greatest_value() -> None:
    one = tracking.Run(metrics={"loss": tracking.MetricSummary(last=2, min=1, max=3, count=9)})

    assert [comparison([one], part)[0].values for part in ("last", "min", "max")] == [("2",), ("1",), ("3",)]
    assert drawn([one], "max") == {"dimensions": [["metric", "loss"]], "runs": [["", "", [3.0]]]}


def test_lines_travel_behind_their_runs_and_lengths() -> None:
    lines = [
        MetricSeries(run="projects/p/runs/a", steps=[1, 2], times_us=[1_000_000, 2_500_000], values=[0.5, math.nan]),
        MetricSeries(run="projects/p/runs/b", steps=[7], times_us=[0], values=[-1.0]),
    ]
    body = bytes(lines_response(lines, beside=False).body)
    (length,) = struct.unpack_from("<I", body)
    columns = np.frombuffer(body, "<f8", offset=4 + length).reshape(3, 3)

    assert (4 + length) % 8 == 0
    assert json.loads(body[4 : 4 + length]) == [["a", 2], ["b", 1]]
    assert columns[0].tolist() == [1, 2, 7]
    assert columns[1].tolist() == [1, 2.5, 0]
    assert np.isnan(columns[2][1])
    assert len(lines_response([], beside=True).body) % 8 == 0


def test_a_column_is_read_from_an_address_and_told_to_the_search_language() -> None:
    found = [Column.parse(each) for each in ("metric.a.b", "metric.a.min", "param.x y", "tag.t", "duration_s", "by")]

    assert [each.name for each in found] == [
        "metric.a.b.last", "metric.a.min", "param.x y", "tag.t", "duration_s", "by"
    ]  # fmt: skip
    assert [each.subject for each in found] == [
        "metric.a.b.last", "metric.a.min", "param.`x y`", "tag.t", "duration_s", ""
    ]  # fmt: skip
    for text in ("", "metric.", "nothing", "password.x"):
        with pytest.raises(InvalidArgument):
            Column.parse(text)


def test_a_cell_shows_what_the_run_has_there() -> None:
    one = run(loss=math.inf, f1=0.5)
    one.params["depth"] = "3"

    def cell(text: str) -> object:
        return Column.parse(text).cell(one)

    assert [cell(each) for each in ("metric.f1", "metric.loss", "metric.none", "param.depth", "tag.none")] == [
        0.5, "inf", None, "3", None
    ]  # fmt: skip


def test_an_address_selects_runs_one_by_one_or_by_a_search() -> None:
    chosen = Selection.of(QueryParams("run=a,b&run=b&run=c&filter=x"))
    found = Selection.of(QueryParams("filter=metric.a+<+1&experiment=e"))

    assert list(chosen.ids) == ["a", "b", "c"]
    assert chosen.query == "run=a,b,c"
    assert Selection.of(QueryParams(found.query)) == found


def test_a_refusal_names_its_character() -> None:
    assert place_of("expected a number, found 'x' at character 12") == 12
    assert place_of("no place") == 0


def step(
    name: str, *inputs: str, after: tuple[str, ...] = (), listed: tuple[str, ...] = ()
) -> orchestrator.StepDefinition:
    items = [orchestrator.StepInput(step=each) for each in listed]
    given = [orchestrator.StepInput(argument=each, step=each) for each in inputs]
    if items:
        given.append(orchestrator.StepInput(argument="all", list=orchestrator.StepInputList(items=items)))
    given.append(orchestrator.StepInput(argument="month", parameter="month"))
    return orchestrator.StepDefinition(id=name, inputs=given, after=after)


def pipeline_run(*steps: orchestrator.StepDefinition) -> orchestrator.PipelineRun:
    return orchestrator.PipelineRun(
        definition=orchestrator.PipelineDefinition(steps=steps),
        steps=[orchestrator.StepState(id=each.id) for each in steps],
    )


def test_a_step_needs_what_it_takes_alone_in_lists_and_what_it_comes_after() -> None:
    assert needed(step("d", "a", "b", "a", listed=("b", "c"), after=("e", "a"))) == ["a", "b", "c", "e"]


def test_a_step_stands_right_of_everything_it_needs() -> None:
    run = pipeline_run(step("a"), step("b"), step("c", "a"), step("d", listed=("b", "c")), step("e", after=("d",)))

    assert [[state.id for state in layer] for layer in layers(run)] == [["a", "b"], ["c"], ["d"], ["e"]]
    assert layers(orchestrator.PipelineRun()) == []


def test_a_drawing_holds_every_box_apart_from_the_others() -> None:
    drawn = graph(pipeline_run(step("a"), step("b"), step("c", "a", "b"), step("d", "c")))

    corners = [(box.x, box.y) for box in drawn.boxes]
    assert len(set(corners)) == 4
    assert all(x >= 0 and x + WIDTH <= drawn.width for x, _ in corners)
    assert all(y >= 0 and y + HEIGHT <= drawn.height for _, y in corners)
    assert [(edge.source, edge.target) for edge in drawn.edges] == [("a", "c"), ("b", "c"), ("c", "d")]


def test_a_drawing_leaves_out_what_it_does_not_know() -> None:
    assert draw([[("a", 1)]], {"a": ["nobody"], "gone": ["a"]}).edges == []
    assert draw([], {}).boxes == []


def window(start: int, version: str, **values: float) -> monitor.Window:
    found = monitor.Window(
        start=Timestamp(seconds=start), model_version=f"projects/p/models/m/versions/{version}", predictions=10
    )
    if "error" in values:
        found.labels, found.mean_error = 10, values["error"]
    if "drift" in values:
        found.statistics.append(monitor.Finding(channel="input:temp", value=values["drift"], threshold=0.2))
    return found


def test_series_of_a_monitor_share_the_slots_and_leave_holes_where_nothing_was_measured() -> None:
    alert = monitor.Alert(kind=monitor.ALERT_KIND_CONCEPT_DRIFT, summary="grew", slot=Timestamp(seconds=20))
    windows = [
        window(20, "1", error=3.0, drift=0.3),
        window(10, "1", error=2.0, drift=math.nan),
        window(20, "2", error=1.0),
        window(40, "2", error=math.nan),
    ]

    data = chart_data(windows, [alert])

    assert data["times"] == [10, 20, 40]
    assert data["errors"] == {"version 1": [2.0, 3.0, None], "version 2": [None, 1.0, None]}
    assert data["predictions"] == {"version 1": [10, 10, 0], "version 2": [0, 10, 10]}
    assert data["channels"] == {"input:temp": [None, 0.3, None]}
    assert data["thresholds"] == {"input:temp": [None, 0.2, None]}
    assert data["alerts"] == [{"time": 20, "onset": 0, "kind": "concept drift", "summary": "grew"}]


def test_a_monitor_that_saw_nothing_has_empty_series() -> None:
    assert chart_data([], [])["times"] == []


def test_moves_of_all_aliases_stand_newest_first() -> None:
    def move(version: int, seconds: int) -> registry.Promotion:
        return registry.Promotion(version=version, time=Timestamp(seconds=seconds))

    model = registry.Model(
        aliases=[
            registry.Alias(alias="production", history=[move(1, 10), move(3, 30)]),
            registry.Alias(alias="shadow", history=[move(2, 20)]),
        ],
        gates=[registry.Gates(alias="canary")],
    )

    assert [each.version for each in moves(model)] == [3, 2, 1]
    assert aliases(model) == ["production", "staging", "canary", "shadow"]


def test_a_search_wants_every_word_anywhere() -> None:
    entry = LogEntry(type="headrace.registry.v1.VersionPromoted", stream_id="projects/default/models/flights")
    entry.meta.actor = "services/serving"

    assert matches(entry, "promoted FLIGHTS")
    assert matches(entry, "serving")
    assert matches(entry, "")
    assert not matches(entry, "promoted hotels")


def test_logs_merge_so_that_no_cause_stands_above_its_effect() -> None:
    cause, effect = LogEntry(event_id="cause", hlc=5, position=900), LogEntry(event_id="effect", hlc=6, position=1)

    assert [each.event_id for each in newest([[cause], [effect]], 10)] == ["effect", "cause"]
    assert [each.event_id for each in newest([[cause], [effect]], 1)] == ["effect"]


def test_a_state_shows_first_what_an_event_changed() -> None:
    fields = changed_fields({"a": 1, "b": 2, "gone": 3}, {"a": 1, "b": 5, "new": True})

    assert [(each.path, each.value, each.before, each.differs) for each in fields] == [
        ("b", 5, 2, True),
        ("new", True, None, True),
        ("gone", None, 3, True),
        ("a", 1, 1, False),
    ]


def test_moments_are_read_to_the_microsecond_and_as_utc() -> None:
    exact = datetime(2026, 5, 3, 14, 3, 0, 1, tzinfo=UTC)

    assert moment_of("2026-05-03T14:03:00.000001Z") == moment_of("2026-05-03 16:03:00.000001+02:00") == exact
    assert moment_of("2026-05-03T14:03:00.000001") == exact
    with pytest.raises(InvalidArgument):
        moment_of("soon")


def test_an_address_asks_for_a_moment_or_a_position_or_now() -> None:
    name = "projects/default/models/m"
    assert not Asked.of({"at": " "})
    by_time, by_position = Asked.of({"at": "2026-05-03T14:03:00Z", "position": "7"}), Asked.of({"position": "7"})

    assert (by_time.query, by_position.query) == ("at=2026-05-03T14%3A03%3A00Z", "position=7")
    assert by_time.request(name).time.ToDatetime(tzinfo=UTC) == moment_of("2026-05-03T14:03:00Z")
    assert by_position.request(name).position == 7
    with pytest.raises(InvalidArgument):
        Asked.of({"position": "-1"})


def test_bytes_are_shown_in_hexadecimal_and_as_text_up_to_a_limit() -> None:
    assert hex_of(b"") == ""
    assert hex_of(b"ab\x00\xff").split() == ["000000", "61", "62", "00", "ff", "ab.."]
    assert hex_of(bytes(range(17))).splitlines()[1].split() == ["000010", "10", "."]
    assert len(hex_of(bytes(HEX_BYTES + 1)).splitlines()) == HEX_BYTES // 16


def test_what_can_not_be_decoded_has_no_text() -> None:
    assert text_of(LogEntry(type="headrace.somewhere.v1.Unknown", data=b"x")) == ""
    assert text_of(LogEntry(type="headrace.registry.v1.VersionPromoted", data=b"\xff\xff")) == ""
    assert text_of(LogEntry(type="headrace.registry.v1.VersionPromoted")) == "{}"
