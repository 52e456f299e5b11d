"""Settings of a process, from its environment. All faults are told at once.

::

    ProcessSettings            every process: object store, Kafka, tokens, metrics port, addresses of the others
    +-- ServiceSettings        answers gRPC
        +-- StoreSettings      owns a database and a log
"""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from headrace_kit.errors import Unavailable


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (host and colon and port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise ValueError("give host:port, such as 127.0.0.1:50051")
    return value


def _addresses(value: str) -> str:
    return ",".join(_address(each.strip()) for each in value.split(","))


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
        raise ValueError("give a URL such as http://127.0.0.1:9000")
    return value.rstrip("/")


def _dsn(value: SecretStr) -> SecretStr:
    if urlsplit(value.get_secret_value()).scheme not in ("postgresql", "postgres"):
        raise ValueError("give postgresql://user:password@host:port/database")
    return value


def _level(value: str) -> str:
    if value.upper() not in logging.getLevelNamesMapping():
        raise ValueError("give debug, info, warning or error")
    return value


Address = Annotated[str, AfterValidator(_address)]
"""``host:port``."""
Addresses = Annotated[str, AfterValidator(_addresses)]
"""``host:port,host:port``."""
Url = Annotated[str, AfterValidator(_url)]
"""``http://host:port``, without a path."""
Dsn = Annotated[SecretStr, AfterValidator(_dsn)]
"""``postgresql://user:password@host:port/database``."""


class ProcessSettings(BaseSettings):
    """What every process needs to know; each adds its own. A field is read from ``HEADRACE_<FIELD>``.

    Values are never shown in errors or logs, since some are secrets.
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", extra="ignore", frozen=True)

    data: Path = Field(description="Folder for this process's scratch files.")
    kafka_bootstrap: Addresses = Field(description="Where Kafka brokers listen.")
    metrics_listen: Address = Field(description="Where this process answers /metrics, /healthz and /readyz.")
    token_file: Path = Field(description="File with this process's own token, for its calls to others.")
    tokens_file: Path = Field(description="File with the digests of tokens that callers may carry.")
    s3_endpoint: Url = Field(description="URL of the object store.")
    s3_access_key: str = Field(min_length=1, description="Key id for the object store.")
    s3_secret_key: SecretStr = Field(description="Secret for the object store.")
    s3_bucket: str = Field(default="headrace", min_length=3, description="Bucket, which must exist.")
    s3_region: str = "us-east-1"
    tracking_address: Address | None = None
    registry_address: Address | None = None
    orchestrator_address: Address | None = None
    serving_address: Address | None = None
    monitor_address: Address | None = None
    serving_url: Url | None = Field(default=None, description="Where serving answers REST.")
    gateway_url: Url | None = Field(default=None, description="Where the console is.")
    drain_s: float = Field(default=10.0, gt=0, le=600, description="Most seconds a stop waits for calls under way.")
    log_level: Annotated[str, AfterValidator(_level)] = "info"

    def token(self) -> str:
        """This process's own token.

        Raises:
            Unavailable: the file can not be read.
        """
        try:
            return self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeError) as error:
            raise Unavailable(f"the token file {self.token_file} can not be read", reason="TOKEN_FILE") from error

    def peers(self) -> Mapping[str, str]:
        """Service name -> gRPC address, of those that are known."""
        names = ("tracking", "registry", "orchestrator", "serving", "monitor")
        given = {name: getattr(self, f"{name}_address") for name in names}
        return {name: str(address) for name, address in given.items() if address}


class ServiceSettings(ProcessSettings):
    """Settings of a process that answers gRPC."""

    grpc_listen: Address = Field(description="Where this service answers gRPC.")


class StoreSettings(ServiceSettings):
    """Settings of a service that owns a database."""

    postgres_dsn: Dsn = Field(description="This service's database, as its own role.")
    migration_dsn: Dsn | None = Field(
        default=None, description="The same database, as the owner of its tables; without it nothing is migrated."
    )
    postgres_pool: int = Field(default=10, ge=2, le=200, description="Most connections to the database.")
    checkpoint_key_file: Path | None = Field(
        default=None,
        description="Ed25519 key (PEM) that signs checkpoints of the log; by default one is made in the data folder.",
    )
    checkpoint_folder: Path | None = Field(
        default=None, description="Folder, best of another host, that gets every checkpoint; it must exist."
    )
    checkpoint_every_s: float = Field(
        default=5.0, ge=0.1, le=3600, description="Least seconds between two checkpoints of the log."
    )


S = TypeVar("S", bound=ProcessSettings)


def load(kind: type[S]) -> S:
    """The settings of this process; where some are missing or wrong, prints every fault and ends with status 2."""
    try:
        return kind()  # pyright: ignore[reportCallIssue]  # the fields come from the environment
    except ValidationError as error:
        sys.stderr.write(describe(kind, error))
        raise SystemExit(2) from None


def describe(kind: type[ProcessSettings], error: ValidationError) -> str:
    """Every fault, one a line, without the values: some are secrets."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    lines = [f"{len(faults)} setting{'s are' if len(faults) > 1 else ' is'} wrong:"]
    for fault in faults:
        name = str(fault["loc"][0]) if fault["loc"] else ""
        field = kind.model_fields.get(name)
        about = f" ({field.description})" if field is not None and field.description else ""
        what = "is not set" if fault["type"] == "missing" else fault["msg"].removeprefix("Value error, ")
        lines.append(f"  HEADRACE_{name.upper()}: {what}{about}")
    return "\n".join(lines) + "\n"
