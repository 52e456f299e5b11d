"""The real flights, read once, and a model trained on three weeks of them."""

import pytest

from flights.data import Flights, load, microseconds
from flights.model import Model, train


@pytest.fixture(scope="session")
def year() -> Flights:
    return load()


@pytest.fixture(scope="session")
def january(year: Flights) -> Flights:
    return year.between(microseconds(2013, 1, 2), microseconds(2013, 1, 23))


@pytest.fixture(scope="session")
def recent(year: Flights) -> Flights:
    return year.between(microseconds(2013, 1, 23), microseconds(2013, 1, 30))


@pytest.fixture(scope="session")
def champion(january: Flights) -> Model:
    return train(january, rounds=60)
