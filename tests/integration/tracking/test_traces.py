"""Traces on real PostgreSQL: each span once in whatever order, bounded, found, and gone for good when deleted."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from headrace.api.tracking.v1 import events_pb2 as events
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace_kit.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from headrace_kit.rebuild import Rebuild
from headrace_tracking import experiments, spanintake, traces
from headrace_tracking.filters import TRACES, parse_filter, parse_order
from headrace_tracking.spanintake import SpanIntake
from headrace_tracking.store import EXPERIMENT, LOGGED_MODEL, RUN
from headrace_tracking.tracedeleting import TraceDeleter
from headrace_tracking.tracestore import Appended, TraceStore
from tests.support.spans import SECOND, now_ns, span, trace_id
from tests.support.tracking import Tracking, context

E = "projects/default/experiments/x"
HEAD = "projects/default/traces/"


@dataclass(frozen=True, slots=True)
class Traces:
    tracking: Tracking
    store: TraceStore
    deleter: TraceDeleter

    async def put(self, *spans: resources.Span, experiment: str = E, run: str = "") -> Appended:
        return await self.store.append(experiment, run, spans)

    async def found(self, text: str = "", order: str = "") -> list[str]:
        found = await self.store.search(
            "default",
            experiments=[E],
            condition=parse_filter(text, TRACES),
            orders=parse_order(order, TRACES),
            limit=100,
        )
        return [each.display_name for each in found.traces]

    async def delete(
        self, *names: str, text: str = "", limit: int = 0, id_: object = None
    ) -> service.DeleteTracesResponse:
        request = service.DeleteTracesRequest(experiment=E, traces=names, filter=text, limit=limit)
        return await self.deleter.delete(request, parse_filter(text, TRACES), context(id_))  # type: ignore[arg-type]

    async def told(self) -> list[object]:
        return [each.message for each in await self.tracking.store.read_stream(E)]


@pytest.fixture
async def kept(tracking: Tracking) -> Traces:
    command = context()
    request = service.CreateExperimentRequest(name=E, display_name="x")
    await tracking.store.execute(
        EXPERIMENT,
        E,
        context=command,
        request=request,
        decide=lambda state: experiments.decide_create(state, request, command),
        respond=lambda found: found,
    )
    return Traces(tracking, TraceStore(tracking.database), TraceDeleter(tracking.store, timedelta(days=30)))


def whole(trace: str) -> list[resources.Span]:
    """Root (1) with two below it, of which one has another."""
    return [
        span(trace, 1, name="ask", took_s=4, mlflow__spanInputs={"q": "why"}, mlflow__spanOutputs="so"),
        span(trace, 2, parent=1, name="find", start_s=1, mlflow__spanType="RETRIEVER", top_k=3),
        span(trace, 3, parent=2, name="read", start_s=1.5, took_s=0.25, path="a.txt"),
        span(trace, 4, parent=1, name="think", start_s=2, took_s=2, model="m-1", failed=True),
    ]


async def test_spans_come_to_the_same_trace_in_whatever_order_and_however_often(kept: Traces) -> None:
    results: list[resources.Trace] = []
    for order in itertools.permutations(range(4)):
        trace = trace_id()
        spans = whole(trace)
        for number in order:
            assert (await kept.put(spans[number])).count == 1
            assert (await kept.put(spans[number])).count == 0
        assert (await kept.put(*spans, *spans)) == Appended()
        held = await kept.store.get(HEAD + trace)
        assert await kept.store.spans(HEAD + trace, after=(0, ""), limit=10) == [spans[at] for at in (0, 1, 2, 3)]
        held.name = ""
        results.append(held)
    first = results[0]
    assert all(each == first for each in results)
    assert (first.display_name, first.state, first.span_count) == ("ask", resources.TRACE_STATE_OK, 4)
    assert (first.duration_ns, first.request_preview, first.response_preview) == (4 * SECOND, '{"q":"why"}', "so")
    assert first.size_bytes == sum(each.ByteSize() for each in whole(trace_id()))


async def test_a_trace_is_what_its_first_span_is_until_its_root_comes(kept: Traces) -> None:
    trace = trace_id()
    spans = whole(trace)
    await kept.put(spans[3])
    held = await kept.store.get(HEAD + trace)
    assert (held.display_name, held.state) == ("think", resources.TRACE_STATE_IN_PROGRESS)
    await kept.put(spans[1])
    assert (await kept.store.get(HEAD + trace)).display_name == "find"
    begun, ended = span(trace, 1, took_s=0, name="ask"), span(trace, 1, took_s=4, name="ask", failed=True)
    await kept.put(begun)
    held = await kept.store.get(HEAD + trace)
    assert (held.display_name, held.state, held.duration_ns) == ("ask", resources.TRACE_STATE_IN_PROGRESS, 0)
    assert (await kept.put(ended)).count == 0  # it is the same span, which has ended now
    assert (await kept.put(begun)).count == 0
    held = await kept.store.get(HEAD + trace)
    assert (held.state, held.duration_ns, held.span_count) == (resources.TRACE_STATE_ERROR, 4 * SECOND, 3)
    assert held.size_bytes == sum(
        each.ByteSize() for each in await kept.store.spans(HEAD + trace, after=(0, ""), limit=10)
    )


def telling(trace: str, **more: object) -> service.LogTraceRequest:
    request = service.LogTraceRequest(
        trace=HEAD + trace,
        experiment=E,
        display_name="told",
        state=resources.TRACE_STATE_OK,
        duration_ns=5 * SECOND,
        metadata={"user": "ada"},
        tags={"team": "ops"},
        **more,  # type: ignore[arg-type]
    )
    request.start_time.FromNanoseconds(now_ns() - 60 * SECOND)
    return request


@pytest.mark.parametrize("first", ["application", "spans"])
async def test_what_an_application_says_counts_more_than_its_spans(kept: Traces, first: str) -> None:
    trace = trace_id()
    if first == "application":
        await kept.store.tell(telling(trace))
    await kept.put(*whole(trace))
    if first == "spans":
        await kept.store.tell(telling(trace))
    held = await kept.store.get(HEAD + trace)
    assert (held.display_name, held.duration_ns, held.span_count) == ("told", 5 * SECOND, 4)
    await kept.store.change_tags(HEAD + trace, {"team": "data", "new": "1"}, ["none"])
    again = telling(trace, request_preview="late")
    again.tags["more"] = "2"
    held = await kept.store.tell(again)  # a repeat that comes late takes nothing back
    assert (dict(held.tags), held.request_preview) == (
        {"team": "data", "new": "1", "more": "2"},
        "" if first == "application" else '{"q":"why"}',
    )


async def test_calls_at_once_for_the_same_traces_are_counted_once(kept: Traces) -> None:
    ids = [trace_id() for _ in range(5)]
    every = [each for trace in ids for each in whole(trace)]

    async def put(first: int) -> int:
        return (await kept.put(*every[first : first + 8])).count

    counts = await asyncio.gather(
        *(put(first) for first in range(0, 20, 2)), *(put(first) for first in range(0, 20, 3))
    )
    assert sum(counts) == len(every)
    for trace in ids:
        assert (await kept.store.get(HEAD + trace)).span_count == 4


async def test_a_full_trace_takes_no_more_and_says_so(kept: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MAX_SPANS", 6)
    trace, other = trace_id(), trace_id()
    assert (await kept.put(*(span(trace, number) for number in range(1, 5)))).count == 4
    appended = await kept.put(*(span(trace, number) for number in range(3, 9)), span(other, 1))
    assert (appended.count, appended.rejected) == (3, 2)
    assert appended.reason.startswith(f"{HEAD}{trace} is full")
    held = await kept.store.get(HEAD + trace)
    assert (held.span_count, held.dropped_span_count) == (6, 2)
    monkeypatch.setattr(traces, "MAX_TRACE_BYTES", 500)
    assert (await kept.put(span(other, 2, text="x" * 600))).rejected == 1
    assert (await kept.put(span(other, 3))).count == 1


async def test_traces_are_found_by_what_they_and_their_spans_are(kept: Traces) -> None:
    for number in range(3):
        trace = trace_id()
        spans = whole(trace)
        for each in spans:
            each.start_time_ns += number * 10 * SECOND
            each.end_time_ns += number * (10 * SECOND + SECOND)
        spans[0].name = f"t{number}"
        spans[1].attributes["top_k"] = str(3 + number)
        await kept.put(*spans, run="projects/default/runs/4b1f6f0e-0000-4000-8000-00000000000" + str(number))
    assert await kept.found() == ["t2", "t1", "t0"]
    assert await kept.found("duration_s > 5.5", "duration_s") == ["t2"]
    assert await kept.found('name like "t%" and not name = "t1"', "name desc") == ["t2", "t0"]
    assert await kept.found('status = "OK" and span.status = "ERROR"', "name") == ["t0", "t1", "t2"]
    assert await kept.found('status in ("ERROR", "IN_PROGRESS")') == []
    assert await kept.found("span.attribute.top_k >= 4", "name") == ["t1", "t2"]
    assert await kept.found("span.attribute.top_k = 4") == ["t1"]
    assert await kept.found('span.attribute.`top_k` = "4"') == ["t1"]
    assert await kept.found('span.attribute.model = "m-1" and span.type = "RETRIEVER"', "name") == ["t0", "t1", "t2"]
    assert await kept.found("span.attribute.none is null", "name") == ["t0", "t1", "t2"]
    assert await kept.found('span.name = "nothing"') == []
    assert await kept.found('run = "4b1f6f0e-0000-4000-8000-000000000001"') == ["t1"]
    assert await kept.found("span_count = 4 and run is not null", "span.name, name") == ["t0", "t1", "t2"]
    assert await kept.found('request = \'{"q":"why"}\' and response ilike "S%"', "name") == ["t0", "t1", "t2"]
    assert await kept.found(f'start_time > "{datetime.now(UTC) + timedelta(hours=1)}"') == []


async def test_pages_go_on_while_traces_are_added(kept: Traces) -> None:
    for number in range(7):
        await kept.put(span(trace_id(), 1, name=f"t{number}", start_s=number))
    seen: list[str] = []
    after = ""
    while True:
        found = await kept.store.search("default", experiments=[], condition=None, orders=(), limit=2, after=after)
        seen += [each.display_name for each in found.traces]
        if len(found.traces) < 2:
            break
        after = found.place
        await kept.put(span(trace_id(), 1, name="late", start_s=100 + len(seen)))
    assert seen == [f"t{number}" for number in reversed(range(7))]


async def test_large_spans_come_in_pages(kept: Traces) -> None:
    trace = trace_id()
    given = [span(trace, number, start_s=number, text="x" * 200_000) for number in range(1, 60)]
    await kept.put(*given)
    found: list[resources.Span] = []
    pages = 0
    while page := await kept.store.spans(
        HEAD + trace, after=(found[-1].start_time_ns, found[-1].span_id) if found else (0, ""), limit=1000
    ):
        assert sum(each.ByteSize() for each in page) <= 5 * 1024 * 1024
        found += page
        pages += 1
    assert (found, pages > 2) == (given, True)


async def test_deleted_traces_are_gone_for_good_and_the_log_tells_which(kept: Traces) -> None:
    ids = [trace_id() for _ in range(4)]
    for number, trace in enumerate(ids):
        await kept.put(*whole(trace), span(trace, 5, name=f"t{number}", start_s=number - 10))
    command = context().command_id
    gone = await kept.delete(HEAD + ids[0], HEAD + trace_id(), id_=command)
    assert (gone.trace_count, gone.span_count, gone.more) == (1, 5, False)
    assert await kept.delete(HEAD + ids[0], HEAD + trace_id()) == service.DeleteTracesResponse()
    with pytest.raises(AlreadyExists):
        await kept.delete(HEAD + ids[1], id_=command)
    with pytest.raises(NotFound):
        await kept.store.get(HEAD + ids[0])
    late = await kept.put(span(ids[0], 9), span(ids[1], 9))
    assert (late.count, late.rejected, late.reason) == (1, 1, f"{HEAD}{ids[0]} was deleted")
    for call in (kept.store.tell(telling(ids[0])), kept.store.change_tags(HEAD + ids[0], {"a": "b"}, [])):
        with pytest.raises(NotFound):
            await call
    gone = await kept.delete(text='span.name = "t2" or span.name = "t3"', limit=1)
    assert (gone.trace_count, gone.more) == (1, True)
    left = await kept.tracking.database.fetch("SELECT DISTINCT trace FROM spans")
    assert {row[0] for row in left} == {HEAD + each for each in (ids[1], ids[3])}  # the oldest went first
    deleted = [each for each in await kept.told() if isinstance(each, events.TracesDeleted)]
    assert [(list(each.traces), each.filter, each.span_count) for each in deleted] == [
        ([ids[0]], "", 5),
        ([ids[2]], 'span.name = "t2" or span.name = "t3"', 5),
    ]


async def test_a_rebuild_knows_which_traces_were_deleted(kept: Traces) -> None:
    ids = [trace_id() for _ in range(3)]
    await kept.put(*(span(each, 1) for each in ids))
    await kept.delete(*(HEAD + each for each in ids[:2]))
    await kept.tracking.database.execute("DELETE FROM deleted_traces WHERE name = $1", HEAD + ids[0])
    report = await Rebuild(kept.tracking.store, [EXPERIMENT, RUN, LOGGED_MODEL]).run(check=False)
    assert [each.table for table in report.tables for each in table.differences] == ["deleted_traces"]
    assert [(await kept.put(span(each, 2))).count for each in ids] == [0, 0, 1]


async def test_deletion_and_spans_at_once_leave_no_span_behind(kept: Traces) -> None:
    for _ in range(5):
        ids = [trace_id() for _ in range(3)]
        names = [HEAD + each for each in ids]
        await kept.put(*(span(each, 1) for each in ids))

        async def put(numbers: Sequence[int], ids: Sequence[str] = ids) -> Appended:
            return await kept.put(*(span(each, number) for each in ids for number in numbers))

        deleting = asyncio.create_task(kept.delete(*names))
        appended = await asyncio.gather(*(put(range(first, first + 20)) for first in range(2, 200, 20)))
        gone = await deleting
        assert gone.trace_count == 3
        assert await kept.tracking.database.fetchval("SELECT count(*) FROM spans WHERE trace = ANY($1)", names) == 0
        assert await kept.tracking.database.fetchval("SELECT count(*) FROM traces WHERE name = ANY($1)", names) == 0
        assert gone.span_count == 3 + sum(each.count for each in appended)
        assert sum(each.rejected for each in appended) == 600 - sum(each.count for each in appended)


async def test_old_traces_go_and_are_counted_in_the_log(kept: Traces) -> None:
    old, new = trace_id(), trace_id()
    aged = span(old, 1)
    aged.start_time_ns -= 40 * 86_400 * SECOND
    aged.end_time_ns -= 40 * 86_400 * SECOND
    await kept.put(aged, span(new, 1))
    assert await kept.deleter.expire(datetime.now(UTC)) == 1
    assert await kept.deleter.expire(datetime.now(UTC)) == 0
    assert await kept.found() == ["span 1"]
    (expired,) = [each for each in await kept.told() if isinstance(each, events.TracesExpired)]
    assert (expired.trace_count, expired.span_count, expired.size_bytes) == (1, 1, aged.ByteSize())
    intake = SpanIntake(kept.store, kept.deleter)
    appended = await intake.take(E, "", [aged, span(new, 2)], datetime.now(UTC))
    assert (appended.count, appended.rejected) == (1, 1)
    assert "older" in appended.reason
    ahead = span(new, 3)
    ahead.start_time_ns = ahead.end_time_ns = now_ns() + 2 * 86_400 * SECOND
    assert (await intake.take(E, "", [ahead], datetime.now(UTC))).rejected == 1
    assert await TraceDeleter(kept.tracking.store, None).expire(datetime.now(UTC)) == 0


async def test_what_waits_is_bounded(kept: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spanintake, "MAX_WAITING_BYTES", 5000)
    intake = SpanIntake(kept.store, kept.deleter)
    given = [[span(trace_id(), 1, text="x" * 2000)] for _ in range(10)]
    results = await asyncio.gather(
        *(intake.take(E, "", each, datetime.now(UTC)) for each in given), return_exceptions=True
    )
    taken = [each for each in results if isinstance(each, Appended)]
    assert all(isinstance(each, Appended | ResourceExhausted) for each in results)
    assert 1 <= len(taken) < 10
    assert (await intake.take(E, "", given[-1], datetime.now(UTC))).rejected == 0  # there is room again


async def test_a_trace_has_a_bounded_number_of_tags(kept: Traces) -> None:
    trace = trace_id()
    await kept.put(span(trace, 1))
    tags = {f"k{number}": "v" for number in range(traces.MAX_LABELS)}
    assert dict((await kept.store.change_tags(HEAD + trace, tags, [])).tags) == tags
    with pytest.raises(FailedPrecondition):
        await kept.store.change_tags(HEAD + trace, {"one more": "v"}, [])
    assert (await kept.store.change_tags(HEAD + trace, {"one more": "v"}, ["k0"])).tags["one more"] == "v"
