"""What a server counts of the versions of an endpoint."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from headrace.api.serving.v1.resources_pb2 import VersionTraffic

LATENCIES_KEPT: Final = 2048


@dataclass(slots=True)
class Traffic:
    """Counts of one version of one endpoint since the process started."""

    version: str
    requests: int = 0
    rows: int = 0
    failures: int = 0
    latencies_s: deque[float] = field(default_factory=lambda: deque[float](maxlen=LATENCIES_KEPT))

    def answered(self, *, rows: int, seconds: float) -> None:
        """Counts an answered request."""
        self.requests += 1
        self.rows += rows
        self.latencies_s.append(seconds)

    def failed(self) -> None:
        """Counts a request that failed through the model's or the server's fault."""
        self.failures += 1

    def message(self) -> VersionTraffic:
        """The counts, and the latency of the last ``LATENCIES_KEPT`` requests."""
        ordered = sorted(self.latencies_s)
        return VersionTraffic(
            version=self.version,
            requests=self.requests,
            rows=self.rows,
            failures=self.failures,
            p50_ms=_quantile(ordered, 0.5) * 1e3,
            p99_ms=_quantile(ordered, 0.99) * 1e3,
        )


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0
