"""For every test: real infrastructure on demand, and what tests need of the machine.

See ``tests/support/stack.py`` for the fixtures and ``tests/support/needs.py`` for markers and groups.
"""

pytest_plugins = ["pytester", "tests.support.stack", "tests.support.needs"]
