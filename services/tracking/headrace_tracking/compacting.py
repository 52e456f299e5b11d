"""When the chunks of a run's points are put together: many small ones after a while, all of them when the run is over.

A run that logs a point at a time leaves a chunk a metric and second. Read, they are the same; together they are smaller
and sooner read. What is counted here is lost with the process, and costs nothing but that.
"""

from collections import OrderedDict
from typing import Final

import structlog

from headrace_kit.errors import KitError
from headrace_tracking.pointstore import PointStore

BATCHES: Final = 128
"""Batches of a run after which it is looked at."""
LEAST: Final = 64
"""Small chunks of a metric that are put together while the run goes on; two are enough when it is over."""
MAX_RUNS: Final = 10_000
"""Runs whose batches are counted; of more, those forgotten that were not heard of for longest."""

_log = structlog.get_logger(__name__)


class Compactor:
    """Counts batches, and puts chunks together. For the tasks of one loop.

    Args:
        points: The tables of points.
    """

    def __init__(self, points: PointStore) -> None:
        self._points = points
        self._batches: OrderedDict[str, int] = OrderedDict()
        self._over: set[str] = set()

    def committed(self, run: str) -> None:
        """A batch of the run was committed."""
        self._batches[run] = self._batches.get(run, 0) + 1
        self._batches.move_to_end(run)
        if len(self._batches) > MAX_RUNS:
            self._batches.popitem(last=False)

    def over(self, run: str) -> None:
        """The run has ended."""
        self._over.add(run)

    async def compact(self, run: str) -> None:
        """Puts the run's chunks together where that is worth it; what can not be done now is left as it is."""
        over = run in self._over
        self._over.discard(run)
        if not over and self._batches.get(run, 0) < BATCHES:
            return
        self._batches.pop(run, None)
        try:
            await self._points.compact(run, least=2 if over else LEAST)
        except KitError as error:
            _log.warning("points_not_compacted", run=run, cause=str(error))
