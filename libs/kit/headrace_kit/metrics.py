"""Every Prometheus metric of the platform's processes, with its type and unit.

Names end in their unit; counters in ``_total``. What an object counts for itself is read from it before each scrape
(``Application.refresh``), so that hot paths touch no metric.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

RPC_HANDLED = Counter("headrace_rpc_handled_total", "Calls answered.", ["service", "method", "code"])
RPC_SECONDS = Histogram(
    "headrace_rpc_seconds", "Time to answer a call, seconds.", ["service", "method"], buckets=_SECONDS
)
RPC_IN_FLIGHT = Gauge("headrace_rpc_in_flight", "Calls being answered.", ["service"])
READY = Gauge("headrace_ready", "1 while the process is ready, else 0.")

LOG_POSITION = Gauge("headrace_log_position", "Last position given to an event.", ["source"])
LOG_LEADER = Gauge("headrace_log_leader", "1 while this process keeps the log, 0 while it stands by.", ["source"])
LOG_TAIL_AGE = Gauge(
    "headrace_log_tail_age_seconds", "Age of the oldest event without a position, seconds.", ["source"]
)
RELAY_BACKLOG = Gauge("headrace_relay_backlog_events", "Events with a position that Kafka has not yet.", ["source"])
RELAY_FAILURES = Gauge("headrace_relay_failures", "How often the broker failed the relay, since the start.", ["source"])
CHECKPOINT_POSITION = Gauge(
    "headrace_checkpoint_position", "Last position that a signed checkpoint covers; 0 on a standby.", ["source"]
)
CHECKPOINT_REFUSED = Gauge(
    "headrace_checkpoint_refused", "1 while the notary refuses to sign: the log is not what it was, else 0.", ["source"]
)
CHECKPOINT_FAILURES = Gauge(
    "headrace_checkpoint_failures", "How often a place for checkpoints failed, since the start.", ["source", "place"]
)
STORE_CONFLICTS = Gauge("headrace_store_conflicts", "Version conflicts of commands, since the start.", ["source"])
STORE_UNKNOWN_OUTCOMES = Gauge(
    "headrace_store_unknown_outcomes", "Commands whose connection died under them, since the start.", ["source"]
)
RESPONSES_FORGOTTEN = Gauge(
    "headrace_responses_forgotten", "Answers to commands forgotten for their age, since the start.", ["source"]
)

CONSUMER_EVENTS = Gauge(
    "headrace_consumer_events", "What a consumer did with events, by outcome, since the start.", ["consumer", "outcome"]
)
EVENTS_UNKNOWN = Counter(
    "headrace_events_unknown_total",
    "Events of newer writers, by what this build does not know of them (type, fields): kept whole, not understood.",
    ["source", "what"],
)

OBJECT_SECONDS = Histogram(
    "headrace_object_seconds", "Time of one request to the object store, seconds.", ["operation"], buckets=_SECONDS
)
OBJECT_BYTES = Counter("headrace_object_bytes_total", "Bytes moved to and from the object store.", ["operation"])

ARCHIVE_OFFSET = Gauge(
    "headrace_archive_next_offset",
    "First offset of a telemetry partition that is not archived.",
    ["topic", "partition"],
)
ARCHIVE_LAG = Gauge(
    "headrace_archive_lag_records", "Records of a telemetry partition that are not archived.", ["topic", "partition"]
)
ARCHIVE_BYTES = Counter("headrace_archive_bytes_total", "Bytes of files that were archived.", ["topic"])

WEBHOOK_ATTEMPTS = Counter(
    "headrace_webhook_attempts_total",
    "Attempts to deliver to webhooks, by outcome (delivered, failed, dead).",
    ["outcome"],
)

SPANS_TAKEN = Counter("headrace_spans_total", "Spans of traces that were kept.")
SPANS_DROPPED = Counter(
    "headrace_spans_dropped_total",
    "Spans of traces that are not kept, by why: rejected when they came, or expired.",
    ["why"],
)
WATCH_STATES_SKIPPED = Counter(
    "headrace_watch_states_skipped_total",
    "States of watched runs that were not sent, since a newer one came before the client took them.",
)
