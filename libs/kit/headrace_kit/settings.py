"""Settings of a service process, from its environment. All faults are told at once."""

import sys
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 1 << 16):
        raise ValueError("give host:port, such as 127.0.0.1:50051")
    return value


Address = Annotated[str, AfterValidator(_address)]
"""``host:port``."""


class ServiceSettings(BaseSettings):
    """What every service needs to know; a service adds its own. Each field is read from ``HEADRACE_<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", extra="ignore", frozen=True)

    data: Path = Field(description="Folder for this process's scratch files.")
    kafka_bootstrap: Address = Field(description="Where a Kafka broker listens.")
    grpc_listen: Address = Field(description="Where this service answers gRPC.")
    metrics_listen: Address = Field(description="Where this service answers /metrics, /healthz and /readyz.")
    token_file: Path = Field(description="File with this service's own token, for its calls to others.")
    tokens_file: Path = Field(description="File with the digests of tokens that callers may carry.")
    s3_endpoint: str = Field(description="URL of the object store.")
    s3_access_key: str
    s3_secret_key: SecretStr
    s3_bucket: str = "headrace"
    s3_region: str = "us-east-1"
    tracking_address: Address | None = None
    registry_address: Address | None = None
    orchestrator_address: Address | None = None
    serving_address: Address | None = None
    monitor_address: Address | None = None
    drain_s: float = Field(default=10.0, gt=0, description="Most seconds a stop waits for calls under way.")
    log_level: str = "info"

    def token(self) -> str:
        """This service's own token. Raises OSError when the file can not be read."""
        return self.token_file.read_text(encoding="ascii").strip()


class StoreSettings(ServiceSettings):
    """Settings of a service that owns a database."""

    postgres_dsn: SecretStr = Field(description="This service's database, as its own role.")
    migration_dsn: SecretStr | None = Field(default=None, description="The same database, as the owner of its tables.")
    postgres_pool: int = Field(default=10, ge=2, le=200, description="Most connections to the database.")


S = TypeVar("S", bound=ServiceSettings)


def load(kind: type[S]) -> S:
    """The settings of this process; where some are missing or wrong, prints every fault and ends with status 2."""
    try:
        return kind()
    except ValidationError as error:
        lines = [f"{len(error.errors())} settings are wrong:"]
        for fault in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in fault["loc"]).upper()
            field = kind.model_fields.get(str(fault["loc"][0])) if fault["loc"] else None
            about = f" ({field.description})" if field is not None and field.description else ""
            lines.append(f"  HEADRACE_{name}: {fault['msg']}{about}")
        sys.stderr.write("\n".join(lines) + "\n")
        raise SystemExit(2) from None
