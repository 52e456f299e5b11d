"""``python -m headrace.worker``: a worker for the platform that is found, or for an address."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from headrace.connection import find
from headrace.worker.running import run_worker


def main() -> int:
    """Run a worker; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m headrace.worker", description="Run steps of pipelines.")
    parser.add_argument("--address", default="", help="host:port of the orchestrator; found when it is not given")
    parser.add_argument("--capacity", type=int, default=os.cpu_count() or 1, help="steps at a time")
    parser.add_argument("--drain-s", type=float, default=30.0, help="seconds for steps under way at a stop")
    parser.add_argument("--worker-id", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=None, help="for the steps' folders")
    parser.add_argument("--parent", type=int, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    connection = find()
    return run_worker(
        given.address or connection.address("orchestrator"),
        lambda: find().token,
        capacity=given.capacity,
        drain_s=given.drain_s,
        worker_id=given.worker_id,
        folder=given.folder,
        parent=given.parent,
    )


if __name__ == "__main__":
    sys.exit(main())
