"""headrace: record runs, register and serve models, watch them, follow what happens.

import headrace

with headrace.start_run("flight-delays") as run:
run.log_params({"learning_rate": 0.1})
run.log_metric("loss", 0.3, step=1)
"""

from headrace import events
from headrace.client import Client, connect
from headrace.errors import HeadraceError
from headrace.tracking import Run, resume_run, start_run, sync

__all__ = ["Client", "HeadraceError", "Run", "connect", "events", "resume_run", "start_run", "sync"]
