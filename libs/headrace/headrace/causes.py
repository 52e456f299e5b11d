"""How calls name their cause: what a step of a pipeline does is caused by the event that gave it to its worker."""

from __future__ import annotations

import os
from collections.abc import Mapping


def causal_metadata(environment: Mapping[str, str] | None = None) -> tuple[tuple[str, str], ...]:
    """Metadata for the calls of a step, and of programs that it starts; empty elsewhere."""
    env = os.environ if environment is None else environment
    pairs = (
        ("headrace-causation-id", env.get("HEADRACE_CAUSATION_ID", "")),
        ("headrace-correlation-id", env.get("HEADRACE_CORRELATION_ID", "")),
        ("headrace-on-behalf-of", env.get("HEADRACE_ON_BEHALF_OF", "")),
    )
    return tuple((key, value) for key, value in pairs if value)
