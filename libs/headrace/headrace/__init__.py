"""headrace: record runs, register and serve models, watch them, follow what happens.

import headrace

with headrace.start_run("flight-delays") as run:
run.log_params({"learning_rate": 0.1})
run.log_metric("loss", 0.3, step=1)
"""

from importlib import import_module
from typing import TYPE_CHECKING

from headrace import events
from headrace.client import Client, connect
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.tracking import Run, resume_run, start_run, sync


def __getattr__(name: str) -> object:
    """What records runs brings NumPy along, which the services do without: it is imported when it is asked for."""
    if name in ("Run", "resume_run", "start_run", "sync"):
        return getattr(import_module("headrace.tracking"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Client", "HeadraceError", "Run", "connect", "events", "resume_run", "start_run", "sync"]
