"""For every test: real infrastructure on demand, and what tests need of the machine.

See ``tests/support/stack.py`` for the fixtures and ``tests/support/needs.py`` for markers and groups.
"""

from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester", "tests.support.stack", "tests.support.needs", "tests.support.platform"]

# A busy machine makes an example slow, not wrong: pytest's time-out is the only clock.
settings.register_profile(
    "headrace",
    settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("headrace")
