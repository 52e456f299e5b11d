"""Signatures of payloads, after the specification Standard Webhooks 1.0 and as MLflow's servers sign theirs.

Both are HMAC-SHA256 over ``{id}.{timestamp}.{body}``; they differ in their headers, and in how a secret becomes a key.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Final

from headrace_kit.errors import InvalidArgument
from headrace_kit.names import require_text

PREFIX: Final = "whsec_"
"""What begins a secret whose key is written in base64."""
LEAST, MOST = 8, 250
"""Characters of a secret."""


def require_secret(secret: str, *, field: str) -> None:
    """A secret that can sign. Raises InvalidArgument, which does not repeat it."""
    require_text(secret, field=field, least=LEAST, most=MOST)
    if secret.startswith(PREFIX):
        try:
            _key(secret)
        except (binascii.Error, ValueError):
            raise InvalidArgument(f"what follows {PREFIX} is no base64", field=field) from None


def standard_headers(message_id: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """The headers of Standard Webhooks; unsigned where there is no secret.

    Args:
        message_id: The same for each attempt; receivers drop what they have seen.
        timestamp: Of this attempt, seconds since 1970 UTC.
        body: As it is sent.
        secrets: Each adds a signature: while a secret is being replaced, receivers accept either.
    """
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if secrets:
        signed = (f"v1,{_sign(_key(each), message_id, timestamp, body)}" for each in secrets)
        headers["webhook-signature"] = " ".join(signed)
    return headers


def mlflow_headers(message_id: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """The headers of MLflow's webhooks, which know one signature: that of the first secret, whose text is the key."""
    headers = {"X-MLflow-Delivery-Id": message_id, "X-MLflow-Timestamp": str(timestamp)}
    if secrets:
        headers["X-MLflow-Signature"] = f"v1,{_sign(secrets[0].encode(), message_id, timestamp, body)}"
    return headers


def _key(secret: str) -> bytes:
    return b64decode(secret.removeprefix(PREFIX), validate=True) if secret.startswith(PREFIX) else secret.encode()


def _sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    return b64encode(hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, "sha256")).decode()
