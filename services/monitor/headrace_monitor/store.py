"""The monitor's aggregate and the read models of monitors, alerts and windows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Final, NamedTuple

from google.protobuf.message import Message

from headrace.api.monitor.v1 import events_pb2 as events
from headrace.api.monitor.v1.resources_pb2 import Alert, Monitor
from headrace_kit.eventstore import Aggregate, Row
from headrace_kit.postgres import Database
from headrace_kit.tables import Kind, Table
from headrace_monitor.countstore import COUNTERS, counts_of
from headrace_monitor.domain import evolve, find_alert
from headrace_monitor.slots import SlotCounts
from headrace_monitor.windowstore import NEVER_US


def monitor_rows(stream_id: str, state: Monitor, changes: Sequence[Message]) -> Sequence[Row]:
    """The rows of a monitor and of its alerts that ``changes`` touched."""
    rows = [
        Row(
            "monitors",
            {"name": stream_id},
            {
                "project": project_of(stream_id),
                "endpoint": state.endpoint,
                "config_revision": state.config_revision,
                "paused": state.paused,
                "create_time": state.create_time.ToDatetime(tzinfo=UTC),
            },
        )
    ]
    for change in changes:
        if isinstance(change, events.AlertRaised):
            rows.append(_alert_row(find_alert(state, change.alert.name)))
        elif isinstance(change, events.AlertAcknowledged):
            rows.append(_alert_row(find_alert(state, change.alert)))
    return rows


REGISTRY_TABLES: Final = ("versions", "aliases")
"""Folded from the registry's log by ``monitor.registry``."""

TABLES: Final = (
    Table("monitors", Kind.READ_MODEL, "what lists and look-ups of monitors need"),
    Table("alerts", Kind.READ_MODEL, "every alert, of AlertRaised and AlertAcknowledged"),
    Table("archived_ranges", Kind.READ_MODEL, "ranges of telemetry that are in the archive"),
    Table("versions", Kind.READ_MODEL, "versions with their references, of the registry's log"),
    Table("aliases", Kind.READ_MODEL, "where aliases point, of the registry's log"),
    Table("watched_endpoints", Kind.TRUTH, "short ids of endpoints, which counts go by"),
    Table("watched_versions", Kind.TRUTH, "short ids of versions, which counts go by"),
    Table("layouts", Kind.TRUTH, "the bins a version is counted by, fixed at its first prediction"),
    Table("slots", Kind.TRUTH, "counts of telemetry by shard, in one transaction with the offsets they stand on"),
    Table("endpoint_counts", Kind.TRUTH, "totals of telemetry by shard"),
    Table("waiting_predictions", Kind.TRUTH, "predictions whose labels are to come"),
    Table("waiting_labels", Kind.TRUTH, "labels whose predictions are to come"),
    Table("windows", Kind.TRUTH, "closed slots, frozen; sealed in the log by WindowsSealed"),
    Table("erasures", Kind.TRUTH, "erasures of telemetry: what is selected, until it is gone"),
    Table("erased_predictions", Kind.TRUTH, "predictions whose labels are still to be erased"),
    Table("replaced_files", Kind.PROGRESS, "files of ranges that are being rewritten"),
    Table("archive_plans", Kind.PROGRESS, "the range of each partition that is being archived, or was last"),
    Table("producers", Kind.PROGRESS, "the last number taken of each producer and shard"),
    Table("shard_progress", Kind.PROGRESS, "the latest event time of each shard"),
    Table("partition_progress", Kind.PROGRESS, "when each partition was read to its end"),
    Table("monitor_progress", Kind.PROGRESS, "up to where slots are closed and decided"),
)
"""The monitor's tables."""

MONITOR = Aggregate(name="monitor", state=Monitor, evolve=evolve, rows=monitor_rows, tables=("monitors", "alerts"))
"""Stream: ``projects/{project}/monitors/{monitor}``."""


class StoredWindow(NamedTuple):
    """Counts of one version in one slot, over all shards."""

    start_us: int
    version: str
    counts: SlotCounts
    closed: bool


class MonitorStore:
    """Queries on the read models."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_monitors(self, project: str, *, after: str, limit: int) -> list[Monitor]:
        """At most ``limit`` monitors of a project, by name, after the name ``after``."""
        rows = await self._database.fetch(
            "SELECT s.state FROM monitors m JOIN streams s ON s.stream_id = m.name"
            " WHERE m.project = $1 AND m.name > $2 ORDER BY m.name LIMIT $3",
            project,
            after,
            limit,
        )
        return [Monitor.FromString(row["state"]) for row in rows]

    async def monitor_of_endpoint(self, project: str, endpoint: str) -> str:
        """Name of the monitor that watches an endpoint; empty when none does."""
        name: str | None = await self._database.fetchval(
            "SELECT name FROM monitors WHERE project = $1 AND endpoint = $2", project, endpoint
        )
        return name or ""

    async def decided_until(self, monitors: Sequence[Monitor]) -> dict[str, int]:
        """Microseconds of event time before which slots are decided, by monitor; none of what decided none."""
        rows = await self._database.fetch(
            "SELECT m.name, p.decided_until_us FROM monitors m"
            " JOIN watched_endpoints e ON e.project = m.project AND e.endpoint = m.endpoint"
            " JOIN monitor_progress p ON p.endpoint_id = e.id WHERE m.name = ANY($1) AND p.decided_until_us > $2",
            [each.name for each in monitors],
            NEVER_US,
        )
        return {row["name"]: row["decided_until_us"] for row in rows}

    async def list_alerts(self, project: str, *, monitor: str, after: str, limit: int) -> list[Alert]:
        """At most ``limit`` alerts, newest first, older than the alert ``after``."""
        rows = await self._database.fetch(
            "SELECT alert FROM alerts WHERE project = $1 AND ($2 = '' OR monitor = $2) AND ($3 = '' OR"
            " (raised_at, name) < (SELECT a.raised_at, a.name FROM alerts a WHERE a.name = $3))"
            " ORDER BY raised_at DESC, name DESC LIMIT $4",
            project,
            monitor,
            after,
            limit,
        )
        return [Alert.FromString(row["alert"]) for row in rows]

    async def monitor_of_alert(self, alert: str) -> str:
        """Name of the monitor that raised an alert; empty when there is none."""
        name: str | None = await self._database.fetchval("SELECT monitor FROM alerts WHERE name = $1", alert)
        return name or ""

    async def endpoint_id(self, project: str, endpoint: str) -> int | None:
        """Short id of an endpoint, when telemetry of it was seen."""
        found: int | None = await self._database.fetchval(
            "SELECT id FROM watched_endpoints WHERE project = $1 AND endpoint = $2", project, endpoint
        )
        return found

    async def layouts(self, endpoint_id: int) -> dict[str, bytes]:
        """Profiles by which the versions of an endpoint are counted."""
        rows = await self._database.fetch(
            "SELECT v.name, l.profile FROM layouts l JOIN watched_versions v ON v.id = l.version_id"
            " WHERE l.endpoint_id = $1",
            endpoint_id,
        )
        return {row["name"]: row["profile"] for row in rows}

    async def windows(
        self, endpoint_id: int, *, from_us: int, until_us: int, version: str, after: tuple[int, str], limit: int
    ) -> list[StoredWindow]:
        """Windows by start and version after (start, version): closed ones as frozen, others as counted so far."""
        rows = await self._database.fetch(
            "WITH closed AS (SELECT coalesce(max(closed_until_us), -9223372036854775808) AS until"
            " FROM monitor_progress WHERE endpoint_id = $1), all_windows AS ("
            "SELECT start_us, version_id, rows, labels, correct, error_sum, error_square, cells, 0 AS shard,"
            " true AS closed FROM windows WHERE endpoint_id = $1 AND start_us >= $2 AND start_us < $3 UNION ALL"
            " SELECT start_us, version_id, rows, labels, correct, error_sum, error_square, cells, shard, false"
            " FROM slots, closed WHERE endpoint_id = $1 AND start_us >= $2 AND start_us < $3"
            " AND start_us >= closed.until"
            "), page AS (SELECT DISTINCT w.start_us, v.name, w.version_id FROM all_windows w JOIN watched_versions v"
            " ON v.id = w.version_id WHERE ($4 = '' OR v.name = $4) AND (w.start_us, v.name) > ($5, $6)"
            " ORDER BY w.start_us, v.name LIMIT $7)"
            " SELECT p.name, w.* FROM page p JOIN all_windows w"
            " ON w.start_us = p.start_us AND w.version_id = p.version_id ORDER BY p.start_us, p.name, w.shard",
            endpoint_id,
            from_us,
            until_us,
            version,
            *after,
            limit,
        )
        found: dict[tuple[int, str], StoredWindow] = {}
        for row in rows:
            key = (row["start_us"], row["name"])
            if key in found:
                found[key].counts.add(counts_of(row))
            else:
                found[key] = StoredWindow(*key, counts_of(row), row["closed"])
        return list(found.values())

    async def counts(self, endpoint_id: int) -> dict[str, int]:
        """Totals of an endpoint by name, and ``predictions_late``."""
        sums = ", ".join(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in COUNTERS)
        # Only names of this module are SQL here.
        row = await self._database.fetchrow(
            f"SELECT {sums}, (SELECT coalesce(sum(s.rows), 0) FROM slots s JOIN monitor_progress p"  # noqa: S608
            " ON p.endpoint_id = s.endpoint_id AND s.start_us < p.closed_until_us WHERE s.endpoint_id = $1)::bigint"
            " - (SELECT coalesce(sum(w.rows), 0) FROM windows w WHERE w.endpoint_id = $1)::bigint AS predictions_late"
            " FROM endpoint_counts WHERE endpoint_id = $1",
            endpoint_id,
        )
        return {} if row is None else {name: row[name] for name in (*COUNTERS, "predictions_late")}


def project_of(name: str) -> str:
    """Project id in a resource name."""
    return name.split("/")[1]


def _alert_row(alert: Alert) -> Row:
    return Row(
        "alerts",
        {"name": alert.name},
        {
            "project": project_of(alert.name),
            "monitor": alert.monitor,
            "raised_at": alert.time.ToDatetime(tzinfo=UTC),
            "alert": alert.SerializeToString(deterministic=True),
        },
    )
