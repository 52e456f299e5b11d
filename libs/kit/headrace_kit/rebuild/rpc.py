"""A rebuild as it is told over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from headrace.api.audit.v1 import service_pb2 as service
from headrace_kit.rebuild.comparing import Difference
from headrace_kit.rebuild.keeping import ReadModels
from headrace_kit.rebuild.rebuilding import Phase, Progress, Report, TableReport

TELL_EVERY_S: Final = 0.2
MAX_SHOWN: Final = 20
"""Differing rows of a table that are told one by one."""
_PHASES: Final = {
    Phase.FOLDING: service.REBUILD_PHASE_FOLDING,
    Phase.CATCHING_UP: service.REBUILD_PHASE_CATCHING_UP,
    Phase.COMPARING: service.REBUILD_PHASE_COMPARING,
    Phase.SWAPPING: service.REBUILD_PHASE_SWAPPING,
}


async def rebuilding(read_models: ReadModels, *, check: bool) -> AsyncIterator[service.RebuildReadModelsResponse]:
    """Rebuilds, and tells some times a second how far that has come; ends it when the caller is gone.

    Raises:
        KitError: as ``Rebuild.run``.
    """
    latest: list[Progress] = []
    task = asyncio.create_task(read_models.rebuild(check=check, tell=latest.append))
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=TELL_EVERY_S)
            if latest:
                yield service.RebuildReadModelsResponse(progress=_progress(latest[-1]))
                latest.clear()
        yield service.RebuildReadModelsResponse(report=_report(task.result()))
    finally:
        task.cancel()
        await asyncio.wait({task})


def _progress(progress: Progress) -> service.RebuildProgress:
    return service.RebuildProgress(phase=_PHASES[progress.phase], done=progress.done, total=progress.total)


def _report(report: Report) -> service.RebuildReport:
    return service.RebuildReport(
        tables=map(_table, report.tables), events=report.events, swapped=report.swapped, locked_s=report.locked_s
    )


def _table(report: TableReport) -> service.RebuiltTable:
    return service.RebuiltTable(
        table=report.table,
        rows=report.rows,
        sha256=report.sha256,
        differing=len(report.differences),
        differences=map(_difference, report.differences[:MAX_SHOWN]),
    )


def _difference(each: Difference) -> service.RowDifference:
    place = service.ROW_PLACE_BOTH
    if not each.rebuilt:
        place = service.ROW_PLACE_LIVE
    elif not each.live:
        place = service.ROW_PLACE_REBUILT
    return service.RowDifference(key=each.key, columns=each.columns, place=place)
