"""Runs from a table: one row each, as ``mlflow.search_runs().to_csv()`` and spreadsheets write them."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID, uuid5

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.client import Client
from headrace.errors import InvalidArgument
from headrace.imports.report import Progress, Report, Tell
from headrace.imports.target import SOURCE_TAG, Target
from headrace.naming import run_uuid

MAX_CELL: Final = 1 << 20
_ROWS: Final = UUID("0d9f3c0a-2d3c-5a56-9c39-5f6a0c4b7a11")
_NAMES: Final = ("name", "run_name", "tags.mlflow.runName")
_STATUSES: Final = {
    "FINISHED": resources.RUN_STATUS_FINISHED,
    "FAILED": resources.RUN_STATUS_FAILED,
    "KILLED": resources.RUN_STATUS_KILLED,
}
_KNOWN: Final = {"run_id", "status", "start_time", "end_time", *_NAMES}
_PREFIXES: Final = ("params.", "metrics.", "tags.")


def import_csv(
    client: Client,
    path: Path,
    *,
    experiment: str,
    project: str = "default",
    dry_run: bool = False,
    tell: Tell = lambda _: None,
) -> Report:
    """Makes a run of each row.

    Columns are ``params.*``, ``metrics.*``, ``tags.*``, ``name``, ``status`` (FINISHED, unless it says FAILED or
    KILLED), ``start_time``, ``end_time`` (ISO 8601, UTC where no offset is given; or milliseconds since 1970) and
    ``run_id``. Empty cells say nothing. A metric gets one point, at step 0 and the end of its run.

    A run's id is ``run_id``, or made of project, experiment and all that its row says: to import the file again, or
    a longer one, adds only the rows that are new.

    Args:
        client: The platform.
        path: The file, UTF-8, with a line of column names.
        experiment: The experiment, by its name for people; made when it is new.
        project: Id of the project.
        dry_run: Say what would be done; nothing is written.
        tell: Called with the progress.

    Raises:
        InvalidArgument: The file is no table of runs.
    """
    report = Report()
    columns, rows = _rows(path)
    for column in columns:
        if column not in _KNOWN and not column.startswith(_PREFIXES):
            report.leave_out(
                f"column {column!r}", "is none of params.*, metrics.*, tags.*, name, status, times, run_id"
            )
    target = Target(client, project, report, dry_run=dry_run)
    home, seen = target.experiment(experiment, {}), Counter[str]()
    for number, row in enumerate(rows, start=1):
        what = f"row {number}"
        try:
            given = {key: value for key, value in row.items() if value}
            _import_row(target, given, what, experiment=home, source=path.name, seen=seen)
        except ValueError as error:
            report.leave_out(what, str(error))
        tell(Progress(what, number, len(rows)))
    return report


def _rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    csv.field_size_limit(MAX_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            rows = [dict(zip(columns, cells, strict=False)) for cells in reader if cells]
    except (OSError, UnicodeError, csv.Error) as error:
        raise InvalidArgument(f"{path} can not be read as CSV: {error}", field="file") from error
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise InvalidArgument(f"the column {twice[0]!r} is there twice", field="file")
    if not any(name in _KNOWN or name.startswith(_PREFIXES) for name in columns):
        raise InvalidArgument(
            "the first line names no column of runs, such as params.rate or metrics.loss", field="file"
        )
    return columns, rows


def _import_row(
    target: Target, row: Mapping[str, str], what: str, *, experiment: str, source: str, seen: Counter[str]
) -> None:
    start, end = _time(row, "start_time"), _time(row, "end_time")
    name = target.run_name(_identity(row, experiment, seen))
    tags = {**_below(row, "tags."), SOURCE_TAG: source}
    tags.pop("mlflow.runName", None)
    run = target.run(name)
    if run is None:
        display = next((row[key] for key in _NAMES if row.get(key)), "")
        request = service.StartRunRequest(name=name, experiment=experiment, display_name=display[:250], tags=tags)
        if start is not None:
            request.start_time.CopyFrom(start)
        run = target.start(request)
        if run is None:
            return
    elif SOURCE_TAG not in run.tags:
        target.report.leave_out(what, "there is a run of this id that no import made")
        return
    else:
        target.report.find("runs")
        target.tags(run, {**tags, SOURCE_TAG: run.tags[SOURCE_TAG]})
    target.params(run, _below(row, "params."))
    moment = end or start or run.start_time
    for key, given in _below(row, "metrics.").items():
        try:
            value = float(given)
        except ValueError:
            target.report.leave_out(f"metric {key!r} of {what}", f"{given[:100]!r} is no number")
            continue
        target.points(run, key, [(0, moment.ToMicroseconds(), value)])
    status = _STATUSES.get(row.get("status", "").upper(), resources.RUN_STATUS_FINISHED)
    finish = service.FinishRunRequest(run=name, status=status)
    finish.end_time.CopyFrom(moment)
    target.finish(run, finish)


def _identity(row: Mapping[str, str], experiment: str, seen: Counter[str]) -> UUID:
    if given := row.get("run_id", ""):
        return run_uuid(given)
    said = repr((experiment, sorted(row.items())))
    seen[said] += 1  # rows that say the same are several runs
    return uuid5(_ROWS, f"{hashlib.sha256(said.encode('utf-8', 'replace')).hexdigest()} {seen[said]}")


def _below(row: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix) and key != prefix}


def _time(row: Mapping[str, str], column: str) -> Timestamp | None:
    """The time in a cell. Raises ValueError when it is none."""
    given = row.get(column, "").strip()
    if not given:
        return None
    stamp = Timestamp()
    try:
        if given.isascii() and given.isdecimal():
            stamp.FromMilliseconds(int(given))
        else:
            moment = datetime.fromisoformat(given)
            stamp.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise ValueError(f"{column} {given[:100]!r} is no time") from None
    return stamp
