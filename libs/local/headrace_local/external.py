"""Servers that exist already and are used instead of our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace_local.errors import LocalError
from headrace_local.s3 import ObjectStoreAddress

DEFAULT_BUCKET = "headrace"


@dataclass(frozen=True, slots=True)
class External:
    """Addresses of existing servers; ``None`` where the stack runs its own."""

    postgres_dsn: str | None = None
    """Of a role that may create roles and databases."""
    kafka_bootstrap: str | None = None
    s3: ObjectStoreAddress | None = None

    @property
    def names(self) -> frozenset[str]:
        """Names of the infrastructure that is not ours."""
        given = {"postgres": self.postgres_dsn, "kafka": self.kafka_bootstrap, "s3": self.s3}
        return frozenset(name for name, value in given.items() if value is not None)


def from_environment(environment: Mapping[str, str]) -> External:
    """Read ``HEADRACE_POSTGRES_DSN``, ``HEADRACE_KAFKA_BOOTSTRAP`` and ``HEADRACE_S3_*``.

    Raises:
        LocalError: an S3 endpoint is given without its keys.
    """
    return External(
        postgres_dsn=environment.get("HEADRACE_POSTGRES_DSN") or None,
        kafka_bootstrap=environment.get("HEADRACE_KAFKA_BOOTSTRAP") or None,
        s3=_s3(environment),
    )


def _s3(environment: Mapping[str, str]) -> ObjectStoreAddress | None:
    endpoint = environment.get("HEADRACE_S3_ENDPOINT")
    if not endpoint:
        return None
    missing = [name for name in ("HEADRACE_S3_ACCESS_KEY", "HEADRACE_S3_SECRET_KEY") if not environment.get(name)]
    if missing:
        raise LocalError(f"HEADRACE_S3_ENDPOINT is set, but {' and '.join(missing)} is not")
    return ObjectStoreAddress(
        endpoint=endpoint.rstrip("/"),
        access_key=environment["HEADRACE_S3_ACCESS_KEY"],
        secret_key=environment["HEADRACE_S3_SECRET_KEY"],
        bucket=environment.get("HEADRACE_S3_BUCKET") or DEFAULT_BUCKET,
    )
