"""Conditions and orders of a search of traces as SQL, over ``traces AS r``."""

from typing import Final

from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace_tracking.filters import TYPED, Comparison, Subject
from headrace_tracking.searching import SqlBuilder


def _words(column: str, names: dict[str, int], prefix: str) -> str:
    """An SQL expression for the name of an enum's number."""
    cases = " ".join(f"WHEN {number} THEN '{name.removeprefix(prefix)}'" for name, number in names.items())
    return f"CASE {column} {cases} END"


_STATES: Final = _words("r.state", dict(resources.TraceState.items()), "TRACE_STATE_")
_KINDS: Final = _words("s.kind", dict(resources.SpanKind.items()), "SPAN_KIND_")
_STATUSES: Final = _words("s.status", dict(resources.SpanStatus.items()), "SPAN_STATUS_")
_OF_TRACE: Final = {
    "trace": "split_part(r.name, '/', 4)",
    "name": "r.display_name",
    "status": _STATES,
    "experiment": "split_part(r.experiment, '/', 4)",
    "run": "nullif(split_part(r.run, '/', 4), '')",
    "request": "nullif(r.request_preview, '')",
    "response": "nullif(r.response_preview, '')",
    "client_request_id": "nullif(r.client_request_id, '')",
    "start_time": "r.start_time",
    "end_time": "(r.start_time + nullif(r.duration_ns, 0) / 1000 * interval '1 microsecond')",
    "duration_s": "(nullif(r.duration_ns, 0) / 1e9)::float8",
    "span_count": "r.span_count::float8",
}
_OF_SPAN: Final = {"name": "s.name", "kind": _KINDS, "type": "nullif(s.type, '')", "status": _STATUSES}


class TraceSql(SqlBuilder):
    """As its base, of traces. A comparison on a span holds when it does for one of the trace's."""

    @property
    def source(self) -> str:
        """Where traces are."""
        return "traces r"

    def value_of(self, subject: Subject) -> str:
        """A scalar expression; NULL where the trace has no such value. Of several spans it is the least."""
        match subject.kind:
            case "trace":
                return _OF_TRACE[subject.key]
            case "tag" | "metadata":
                return self._of_one(subject)
            case _:
                # Text of this module; what the caller wrote is a parameter.
                return f"(SELECT min({self._of_one(subject)}) FROM spans s WHERE s.trace = r.name)"  # noqa: S608

    def _comparison(self, comparison: Comparison) -> str:
        subject, operator, value = comparison.subject, comparison.operator, comparison.value
        if operator in ("is null", "is not null") or subject.kind == "trace":
            return super()._comparison(comparison)
        if subject.kind in TYPED and operator == "=" and isinstance(value, str):
            test = f"{_column(subject)} @> {self.parameter({subject.key: value})}::jsonb"
        else:
            test = self._test(self._of_one(subject), comparison)
        if subject.kind in ("tag", "metadata"):
            return test
        return f"EXISTS (SELECT FROM spans s WHERE s.trace = r.name AND {test})"

    def _of_one(self, subject: Subject) -> str:
        """A scalar expression of the trace ``r`` or of its span ``s``."""
        if subject.kind == "span":
            return _OF_SPAN[subject.key]
        return f"({_column(subject)} ->> {self.parameter(subject.key)}::text)"


def _column(subject: Subject) -> str:
    """The column that holds values by key."""
    return {"tag": "r.tags", "metadata": "r.metadata", "span_attribute": "s.attributes"}[subject.kind]
