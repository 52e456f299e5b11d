"""Play flights back in order of time: requests as they leave, labels as they land."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from flights.data import NEVER, Flights, Floats, Times

HOUR_US: Final = 3_600_000_000
SLOT_S: Final = 6 * 3600
"""Length of the monitor's slots in event time; windows of a replay divide it, so that no request lies in two slots."""
MAX_ROWS: Final = 256

Numbers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """Flights of one window that ask for their delay in one request.

    Attributes:
        number: Dense, from 0, in order.
        event_us: When the first of them left, microseconds since 1970 UTC.
        first_row: Row in ``Flights`` of the first; the others follow it.
        features: ``(n, len(FEATURES)) float32``.
    """

    number: int
    event_us: int
    first_row: int
    features: Floats


@dataclass(frozen=True, slots=True)
class LabelBatch:
    """Delays of flights that landed in one window, each asked for in an earlier step.

    Attributes:
        known_us: End of the window, microseconds since 1970 UTC: all these labels are known.
        requests: ``(n,) int64``, the ``number`` of the request that asked; ascending, then ``rows`` ascending.
        rows: ``(n,) int64``, row within that request.
        labels: ``(n,) float32``, minutes late at arrival.
        label_us: ``(n,) int64``, when each landed.
    """

    known_us: int
    requests: Numbers
    rows: Numbers
    labels: Floats
    label_us: Times


Step: TypeAlias = PredictRequest | LabelBatch


@dataclass(frozen=True, slots=True)
class Replay:
    """A stretch of time to be played back, as often as wanted: each ``steps()`` yields the same.

    Attributes:
        flights: What is played back: the flights that leave in the stretch, such as ``flights.between(...)``.
        window_s: Flights that leave within so many seconds share requests. Divides ``SLOT_S``.
        max_rows: Rows a request carries at most.
    """

    flights: Flights
    window_s: int = 3600
    max_rows: int = MAX_ROWS

    def __post_init__(self) -> None:
        """Refuse settings that break what ``steps`` promises."""
        if self.window_s < 1 or SLOT_S % self.window_s:
            raise ValueError(f"window_s {self.window_s} does not divide a slot of {SLOT_S} s")
        if self.max_rows < 1:
            raise ValueError(f"max_rows {self.max_rows} is not positive")

    def steps(self) -> Iterator[Step]:
        """Yield requests and labels by the end of their windows; in a window, requests come first.

        Every flight is in one request. Every label comes once, after its request, in the window in which its flight
        landed; labels of the last flights follow when all have been asked for. Cancelled or diverted flights have none.
        """
        firsts = self._first_rows()
        labels = _Landings(self.flights, firsts)
        window_us = self.window_s * 1_000_000
        window = -1
        for number, first in enumerate(firsts):
            event_us = int(self.flights.event_us[first])
            if event_us // window_us > window >= 0:
                yield from labels.windows(window, event_us // window_us, window_us)
            window = event_us // window_us
            end = int(firsts[number + 1]) if number + 1 < len(firsts) else len(self.flights)
            yield PredictRequest(number, event_us, int(first), self.flights.features[first:end])
        if window >= 0:
            yield from labels.windows(window, labels.last_us // window_us + 1, window_us)

    def requests(self) -> int:
        """Number of requests that ``steps`` yields."""
        return len(self._first_rows())

    def _first_rows(self) -> Numbers:
        """Row of the first flight of each request: a window begins, or a request is full."""
        window = self.flights.event_us // (self.window_s * 1_000_000)
        row = np.arange(len(window), dtype=np.int64)
        begins = np.flatnonzero(np.diff(window, prepend=-1))
        within = row - begins[np.searchsorted(begins, row, side="right") - 1]
        starts: Numbers = row[within % self.max_rows == 0]
        return starts


class _Landings:
    """Labels in order of landing, handed out window by window."""

    def __init__(self, flights: Flights, firsts: Numbers) -> None:
        landed = np.flatnonzero(flights.label_us < NEVER)
        order = landed[np.argsort(flights.label_us[landed], kind="stable")]
        self._request = np.searchsorted(firsts, order, side="right") - 1
        self._row = order - firsts[self._request]
        self._label = flights.labels[order]
        self._landed_us = flights.label_us[order]
        self._given = 0
        self.last_us = int(self._landed_us[-1]) if len(order) else -1

    def windows(self, first: int, until: int, window_us: int) -> Iterator[LabelBatch]:
        """Labels of windows ``first`` to ``until`` (exclusive), one batch each, windows without labels left out."""
        for end_us in range((first + 1) * window_us, (until + 1) * window_us, window_us):
            stop = int(np.searchsorted(self._landed_us, end_us))
            if stop > self._given:
                batch = np.arange(self._given, stop)
                rows = batch[np.lexsort((self._row[batch], self._request[batch]))]
                yield LabelBatch(end_us, self._request[rows], self._row[rows], self._label[rows], self._landed_us[rows])
                self._given = stop
