"""The tables of traces: rows of traces, and of each its spans.

Whatever changes a trace holds its row, so what its spans come to is kept up with them, and a deletion leaves none
behind. A span is known by its trace and its id, so a repeat adds nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Final

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import Span, Trace
from headrace_kit.errors import NotFound
from headrace_kit.postgres import Connection, Database, Record
from headrace_tracking import searching, traces
from headrace_tracking.filters import Condition, Order
from headrace_tracking.traces import Held
from headrace_tracking.tracesearching import TraceSql

PAGE_BYTES: Final = 4 * 1024 * 1024
"""A page of spans ends after so many bytes."""
_COLUMNS: Final = (
    "name, experiment, run, display_name, state, start_time, duration_ns, request_preview, response_preview,"
    " client_request_id, metadata, tags, is_told, root_start_ns, span_count, dropped_span_count, size_bytes"
)
_HOLD: Final = f"""
INSERT INTO traces AS t (project, {_COLUMNS})
SELECT split_part(g.name, '/', 2), g.name, $2, '', '', 1, 'epoch', 0, '', '', '', '{{}}', '{{}}', false, 0, 0, 0, 0
FROM unnest($1::text[]) g(name) ORDER BY g.name
ON CONFLICT (name) DO UPDATE SET name = t.name
RETURNING {_COLUMNS}
"""  # noqa: S608 - names of columns
_UNHOLD: Final = """
DELETE FROM traces t USING deleted_traces d WHERE t.name = d.name AND t.name = ANY($1::text[]) RETURNING t.name
"""
_KNOWN: Final = "SELECT trace, span_id FROM spans WHERE trace = ANY($1::text[]) AND span_id = ANY($2::text[])"
_INSERT: Final = """
INSERT INTO spans AS s (trace, span_id, start_ns, is_ended, name, kind, status, type, attributes, content)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::boolean[], $5::text[], $6::smallint[], $7::smallint[],
    $8::text[], $9::jsonb[], $10::bytea[])
ON CONFLICT (trace, span_id) DO UPDATE SET
    start_ns = EXCLUDED.start_ns, is_ended = EXCLUDED.is_ended, name = EXCLUDED.name, kind = EXCLUDED.kind,
    status = EXCLUDED.status, type = EXCLUDED.type, attributes = EXCLUDED.attributes, content = EXCLUDED.content
    WHERE NOT s.is_ended AND EXCLUDED.is_ended
RETURNING trace, span_id, old.content IS NULL AS is_new,
    octet_length(content) - coalesce(octet_length(old.content), 0) AS added
"""
_UPDATE: Final = """
UPDATE traces t SET
    run = g.run, display_name = g.display_name, state = g.state, start_time = g.start_time,
    duration_ns = g.duration_ns, request_preview = g.request_preview, response_preview = g.response_preview,
    client_request_id = g.client_request_id, metadata = g.metadata, tags = g.tags, is_told = g.is_told,
    root_start_ns = g.root_start_ns, span_count = g.span_count, dropped_span_count = g.dropped_span_count,
    size_bytes = g.size_bytes
FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::timestamptz[], $6::bigint[], $7::text[],
    $8::text[], $9::text[], $10::jsonb[], $11::jsonb[], $12::boolean[], $13::bigint[], $14::bigint[], $15::bigint[],
    $16::bigint[])
    g(name, run, display_name, state, start_time, duration_ns, request_preview, response_preview, client_request_id,
    metadata, tags, is_told, root_start_ns, span_count, dropped_span_count, size_bytes)
WHERE t.name = g.name
"""
_SPANS: Final = """
SELECT content, start_ns, span_id FROM (
    SELECT content, start_ns, span_id,
        sum(octet_length(content)) OVER (ORDER BY start_ns, span_id) - octet_length(content) AS before
    FROM (
        SELECT * FROM spans WHERE trace = $1 AND (start_ns, span_id) > ($2, $3) ORDER BY start_ns, span_id LIMIT $4
    ) page
) p WHERE before < $5 ORDER BY start_ns, span_id
"""


@dataclass(slots=True)
class Appended:
    """What became of spans.

    Attributes:
        count: Those that were new.
        rejected: Those that are not kept.
        reason: Why, of the first of them.
    """

    count: int = 0
    rejected: int = 0
    reason: str = ""

    def reject(self, count: int, reason: str) -> None:
        """Counts spans that are not kept."""
        if count and not self.rejected:
            self.reason = reason
        self.rejected += count


@dataclass(frozen=True, slots=True)
class Found:
    """A page of traces, and where the next one begins."""

    traces: list[Trace] = field(default_factory=list[Trace])
    place: str = ""


class TraceStore:
    """Reads and writes traces.

    Args:
        database: Tracking's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, experiment: str, run: str, spans: Sequence[Span]) -> Appended:
        """Keeps spans, those that are there already left out, all in one transaction."""
        head = f"{experiment.partition('/experiments/')[0]}/traces/"
        given: dict[str, dict[str, Span]] = defaultdict(dict)
        for each in spans:
            of_trace = given[head + each.trace_id]
            if each.span_id not in of_trace or not of_trace[each.span_id].end_time_ns:
                of_trace[each.span_id] = each
        appended = Appended()
        async with self._database.transaction() as connection:
            held = await _hold(connection, given, experiment)
            for name in given.keys() - held.keys():
                appended.reject(len(given.pop(name)), f"{name} was deleted")
            kept = await _fitting(connection, held, given, appended)
            new = await _insert(connection, kept)
            for name, before in held.items():
                ids = new.get(name, {})
                after = traces.of_spans(before, [kept[name][each] for each in ids])
                after.trace.span_count += sum(is_new for is_new, _ in ids.values())
                after.trace.size_bytes += sum(added for _, added in ids.values())
                after.trace.run = after.trace.run or run
                appended.count += sum(is_new for is_new, _ in ids.values())
                held[name] = after
            await _update(connection, list(held.values()))
        return appended

    async def tell(self, told: service.LogTraceRequest) -> Trace:
        """Keeps what an application says of a trace.

        Raises:
            NotFound: The trace was deleted.
            FailedPrecondition: It would have too many tags or too much metadata.
        """
        return await self._change(told.trace, told.experiment, lambda held: traces.of_application(held, told))

    async def change_tags(self, name: str, set_: Mapping[str, str], removed: Sequence[str]) -> Trace:
        """Sets and removes tags. Raises NotFound, and FailedPrecondition when there would be too many."""
        return await self._change(
            name,
            "",
            lambda held: Held(traces.with_tags(held.trace, dict(set_), removed), held.is_told, held.root_start_ns),
        )

    async def get(self, name: str) -> Trace:
        """The trace. Raises NotFound."""
        row = await self._database.fetchrow(f"SELECT {_COLUMNS} FROM traces WHERE name = $1", name)  # noqa: S608 - names of columns
        if row is None:
            raise NotFound("trace", name, field="name")
        return _held(row).trace

    async def spans(self, trace: str, *, after: tuple[int, str], limit: int) -> list[Span]:
        """At most ``limit`` spans by start and id, behind those; fewer when they are large, none at the end."""
        rows = await self._database.fetch(_SPANS, trace, after[0], after[1], limit, PAGE_BYTES)
        return [Span.FromString(row["content"]) for row in rows]

    async def search(
        self,
        project: str,
        *,
        experiments: Sequence[str],
        condition: Condition | None,
        orders: Sequence[Order],
        limit: int,
        after: str = "",
    ) -> Found:
        """At most ``limit`` traces in order, after a place."""
        sql = TraceSql(project, condition=condition)
        where = [matching(sql, experiments=experiments, condition=condition)]
        keys = searching.sort_keys(sql, orders)
        if after:
            where.append(searching.after(sql, keys, searching.read(keys, after)))
        values = ", ".join(f"{key.expression} AS k{at}" for at, key in enumerate(keys))
        order = ", ".join(key.sql for key in keys)
        # Only text of this package is SQL here; every value is a parameter, the limit is a number.
        rows = await self._database.fetch(
            f"SELECT {_COLUMNS}, {values} FROM {sql.source} WHERE {' AND '.join(where)}"  # noqa: S608
            f" ORDER BY {order} LIMIT {int(limit)}",
            *sql.parameters,
        )
        place = searching.written([rows[-1][f"k{at}"] for at in range(len(keys))]) if rows else ""
        return Found([_held(row).trace for row in rows], place)

    async def _change(self, name: str, experiment: str, change: Callable[[Held], Held]) -> Trace:
        """Changes one trace, which is made when there is an experiment for it."""
        async with self._database.transaction() as connection:
            if experiment:
                held = (await _hold(connection, [name], experiment)).get(name)
            else:
                row = await connection.fetchrow(
                    f"SELECT {_COLUMNS} FROM traces WHERE name = $1 FOR UPDATE",  # noqa: S608 - names of columns
                    name,
                )
                held = None if row is None else _held(row)
            if held is None:
                raise NotFound("trace", name, field="trace")
            changed = change(held)
            await _update(connection, [changed])
        return changed.trace


def matching(sql: TraceSql, *, experiments: Sequence[str], condition: Condition | None) -> str:
    """An SQL condition on ``sql.source`` for the traces of a search; the project is the first parameter of ``sql``."""
    where = ["r.project = $1"]
    if experiments:
        where.append(f"r.experiment = ANY({sql.parameter(list(experiments))}::text[])")
    if condition is not None:
        where.append(sql.condition(condition))
    return " AND ".join(where)


async def _hold(
    connection: Connection, names: Mapping[str, object] | Sequence[str], experiment: str
) -> dict[str, Held]:
    """Makes the rows that are missing and holds all of them, but for those of traces that were deleted."""
    rows = await connection.fetch(_HOLD, sorted(names), experiment)
    # Asked in a statement of its own: it sees a deletion that the one before waited for.
    gone = {row[0] for row in await connection.fetch(_UNHOLD, sorted(names))}
    return {row["name"]: _held(row) for row in rows if row["name"] not in gone}


async def _fitting(
    connection: Connection, held: Mapping[str, Held], given: Mapping[str, Mapping[str, Span]], appended: Appended
) -> dict[str, dict[str, Span]]:
    """The spans that their traces have room for; the others are counted."""
    kept = {name: dict(spans) for name, spans in given.items()}
    full = [
        name
        for name, spans in kept.items()
        if held[name].trace.span_count + len(spans) > traces.MAX_SPANS
        or held[name].trace.size_bytes + sum(each.ByteSize() for each in spans.values()) > traces.MAX_TRACE_BYTES
    ]
    if not full:
        return kept
    ids = sorted({span_id for name in full for span_id in kept[name]})
    known = {(row[0], row[1]) for row in await connection.fetch(_KNOWN, full, ids)}
    for name in full:
        trace = held[name].trace
        room, room_bytes = traces.MAX_SPANS - trace.span_count, traces.MAX_TRACE_BYTES - trace.size_bytes
        for span_id, span in given[name].items():
            if (name, span_id) in known:
                continue
            if room <= 0 or room_bytes < span.ByteSize():
                del kept[name][span_id]
                trace.dropped_span_count += 1
                most = f"{traces.MAX_SPANS} spans and {traces.MAX_TRACE_BYTES} bytes"
                appended.reject(1, f"{name} is full: a trace has at most {most}")
            else:
                room, room_bytes = room - 1, room_bytes - span.ByteSize()
    return kept


async def _insert(
    connection: Connection, given: Mapping[str, Mapping[str, Span]]
) -> dict[str, dict[str, tuple[bool, int]]]:
    """By trace and id, of spans that were new or ended: whether it was new, and the bytes it added."""
    rows = [(name, span) for name in sorted(given) for _, span in sorted(given[name].items())]
    if not rows:
        return {}
    found: dict[str, dict[str, tuple[bool, int]]] = defaultdict(dict)
    for row in await connection.fetch(
        _INSERT,
        [name for name, _ in rows],
        [span.span_id for _, span in rows],
        [span.start_time_ns for _, span in rows],
        [bool(span.end_time_ns) for _, span in rows],
        [span.name for _, span in rows],
        [int(span.kind) for _, span in rows],
        [int(span.status) for _, span in rows],
        [traces.type_of(span) for _, span in rows],
        [traces.searched(span) for _, span in rows],
        [span.SerializeToString() for _, span in rows],
    ):
        found[row["trace"]][row["span_id"]] = (row["is_new"], row["added"])
    return found


async def _update(connection: Connection, held: Sequence[Held]) -> None:
    rows = [(each.trace, each) for each in held]
    await connection.execute(
        _UPDATE,
        [trace.name for trace, _ in rows],
        [trace.run for trace, _ in rows],
        [trace.display_name for trace, _ in rows],
        [int(trace.state) for trace, _ in rows],
        [trace.start_time.ToDatetime(tzinfo=UTC) for trace, _ in rows],
        [trace.duration_ns for trace, _ in rows],
        [trace.request_preview for trace, _ in rows],
        [trace.response_preview for trace, _ in rows],
        [trace.client_request_id for trace, _ in rows],
        [dict(trace.metadata) for trace, _ in rows],
        [dict(trace.tags) for trace, _ in rows],
        [each.is_told for _, each in rows],
        [each.root_start_ns for _, each in rows],
        [trace.span_count for trace, _ in rows],
        [trace.dropped_span_count for trace, _ in rows],
        [trace.size_bytes for trace, _ in rows],
    )


def _held(row: Record) -> Held:
    trace = Trace(
        name=row["name"],
        experiment=row["experiment"],
        run=row["run"],
        display_name=row["display_name"],
        state=row["state"],
        duration_ns=row["duration_ns"],
        request_preview=row["request_preview"],
        response_preview=row["response_preview"],
        client_request_id=row["client_request_id"],
        metadata=row["metadata"],
        tags=row["tags"],
        span_count=row["span_count"],
        dropped_span_count=row["dropped_span_count"],
        size_bytes=row["size_bytes"],
    )
    trace.start_time.FromDatetime(row["start_time"])
    return Held(trace, row["is_told"], row["root_start_ns"])
