"""The worker: a process that leases steps of pipelines from the orchestrator and runs each in a process of its own.

It is part of the SDK and not of the orchestrator, so that a machine that only runs steps (with a GPU, with the data)
needs nothing but ``pip install headrace`` and the address: ``headrace worker`` or ``python -m headrace.worker``.
"""

from headrace.worker.session import Worker

__all__ = ["Worker"]
