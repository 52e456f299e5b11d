"""Webhooks: events sent to other people's HTTP servers, signed, and to no address that is not theirs.

``targets`` says which addresses may be reached, ``signing`` makes the headers, ``backoff`` the pauses, ``sending`` does
one attempt. Who keeps what was delivered is the service's own matter.
"""

from headrace_kit.webhooks.backoff import delay_s
from headrace_kit.webhooks.sending import Answer, Sender
from headrace_kit.webhooks.signing import mlflow_headers, require_secret, standard_headers
from headrace_kit.webhooks.targets import Allowed, Target, parse_target, refusal

__all__ = [
    "Allowed",
    "Answer",
    "Sender",
    "Target",
    "delay_s",
    "mlflow_headers",
    "parse_target",
    "refusal",
    "require_secret",
    "standard_headers",
]
