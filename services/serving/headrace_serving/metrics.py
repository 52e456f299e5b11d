"""Prometheus metrics of serving, with their types and units."""

from prometheus_client import Counter, Gauge, Histogram

_VERSION = ["endpoint", "version"]
SECONDS = Histogram(
    "headrace_inference_seconds",
    "Time a version took to answer a request, seconds.",
    _VERSION,
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)
ROWS = Counter("headrace_inference_rows_total", "Rows answered.", _VERSION)
FAILED = Counter("headrace_inference_failed_total", "Requests that failed through the model's fault.", _VERSION)
REFUSED = Counter("headrace_inference_refused_total", "Requests refused because too many were under way.")
TELEMETRY_ROWS = Gauge(
    "headrace_serving_telemetry_rows", "Rows of predictions by what became of them, since the start.", ["outcome"]
)
