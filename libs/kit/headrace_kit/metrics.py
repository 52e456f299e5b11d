"""Every Prometheus metric of the platform's processes, with its type and unit."""

from prometheus_client import Counter, Gauge, Histogram

RPC_HANDLED = Counter("headrace_rpc_handled_total", "Calls answered.", ["service", "method", "code"])
RPC_SECONDS = Histogram(
    "headrace_rpc_seconds",
    "Time to answer a call, seconds.",
    ["service", "method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
RPC_IN_FLIGHT = Gauge("headrace_rpc_in_flight", "Calls being answered.", ["service"])
LOG_POSITION = Gauge("headrace_log_position", "Last position given to an event.", ["source"])
LOG_TAIL_AGE = Gauge(
    "headrace_log_tail_age_seconds", "Age of the oldest event without a position, seconds.", ["source"]
)
RELAY_BACKLOG = Gauge("headrace_relay_backlog_events", "Events with a position that Kafka has not yet.", ["source"])
CONSUMER_LAG = Gauge("headrace_consumer_lag_records", "Records a consumer has not handled.", ["consumer"])
CONSUMER_PARKED = Counter("headrace_consumer_parked_total", "Events a consumer parked.", ["consumer"])
CONSUMER_RESTARTS = Counter(
    "headrace_consumer_restarts_total", "Clients made anew by the stall watchdog.", ["consumer"]
)
