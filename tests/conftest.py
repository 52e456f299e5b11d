"""Fixtures for every test: real infrastructure on demand (see ``tests/support/stack.py``)."""

pytest_plugins = ["tests.support.stack"]
