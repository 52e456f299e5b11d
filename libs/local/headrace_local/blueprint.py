"""What a stack consists of: its parts with their settings, and where each will listen. Nothing runs here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace_local import accounts, databases, jars, names
from headrace_local import services as service_parts
from headrace_local.credentials import OPERATOR, Credentials
from headrace_local.external import DEFAULT_BUCKET, External
from headrace_local.folder import DataFolder
from headrace_local.kafka import Kafka
from headrace_local.part import Part
from headrace_local.postgres import Postgres
from headrace_local.s3 import S3, ObjectStoreAddress

_PORTS = {"postgres": ("postgres",), "kafka": ("kafka", "kafka.controller"), "s3": ("s3",)}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a started stack listens; empty strings for what it does not run."""

    postgres_dsn: str
    """The administrator's: may create databases and roles."""
    kafka_bootstrap: str
    s3: ObjectStoreAddress | None
    grpc: dict[str, str]
    """``host:port`` by service."""
    serving_url: str
    gateway_url: str
    token_file: Path
    """The operator's token."""


@dataclass(frozen=True, slots=True)
class Infrastructure:
    """The servers a stack runs itself, and where all of them are, other people's included."""

    parts: list[Part]
    addresses: Addresses
    notes: list[str]
    """For the operator to read."""


@dataclass(frozen=True, slots=True)
class Blueprint:
    """Makes the parts of one stack out of its data folder, ports and secrets."""

    folder: DataFolder
    parts: frozenset[str]
    external: External
    credentials: Credentials
    cache: Path
    jar_progress: jars.Progress | None

    @property
    def own(self) -> frozenset[str]:
        """Names of the parts that run here."""
        return self.parts - self.external.names

    def port_names(self) -> list[str]:
        """Return a name for every port that is needed, in a fixed order."""
        infrastructure = [port for name in names.INFRASTRUCTURE if name in self.own for port in _PORTS[name]]
        services = [port for name in names.SERVICES if name in self.parts for port in service_parts.port_names(name)]
        return infrastructure + services

    def infrastructure(self, ports: Mapping[str, int], *, folder_id: str) -> Infrastructure:
        """Return the servers to run; as root this may copy PostgreSQL's programs and open the data folder for it."""
        parts: list[Part] = []
        notes: list[str] = []
        dsn, bootstrap, store = self.external.postgres_dsn, self.external.kafka_bootstrap, self.external.s3
        if "postgres" in self.own:
            postgres = self._postgres(ports["postgres"], folder_id, notes)
            dsn = postgres.dsn
            parts.append(postgres)
        if "kafka" in self.own:
            kafka = self._kafka(ports["kafka"], ports["kafka.controller"])
            bootstrap = kafka.address
            parts.append(kafka)
        if "s3" in self.own:
            s3 = S3(self.folder.s3, ports["s3"], self.credentials.password("s3"))
            store = s3.location(DEFAULT_BUCKET)
            parts.append(s3)
        addresses = Addresses(
            postgres_dsn=dsn or "",
            kafka_bootstrap=bootstrap or "",
            s3=store,
            grpc={name: f"127.0.0.1:{ports[f'{name}.grpc']}" for name in names.WITH_GRPC if f"{name}.grpc" in ports},
            serving_url=_url(ports, "serving"),
            gateway_url=_url(ports, "gateway"),
            token_file=self.credentials.token_file(OPERATOR),
        )
        return Infrastructure(parts, addresses, notes)

    def services(self, ports: Mapping[str, int], where: Addresses) -> list[Part]:
        """Return the services to run on the servers at ``where``."""
        return [
            service_parts.Service(name, self._environment(name, ports, where), ports, self.folder.scratch(name))
            for name in names.SERVICES
            if name in self.parts
        ]

    def _postgres(self, port: int, folder_id: str, notes: list[str]) -> Postgres:
        user = accounts.unprivileged()
        cluster = accounts.cluster_path(self.folder.path, folder_id=folder_id, user=user)
        if user is not None:
            notes.append(f"running as root: PostgreSQL runs as {accounts.name_of(user)}, for it refuses root")
            if cluster.is_relative_to(self.folder.path):
                self.folder.path.chmod(0o711)  # the account must pass through; what lies inside stays closed
            else:
                notes.append(f"that account cannot enter {self.folder.path}, so PostgreSQL's files lie in {cluster}")
        return Postgres(
            programs=accounts.binaries(user=user),
            cluster=cluster,
            user=user,
            port=port,
            password=self.credentials.password("postgres"),
            log=self.folder.log("postgres"),
        )

    def _kafka(self, port: int, controller_port: int) -> Kafka:
        return Kafka(
            folder=self.folder.kafka,
            port=port,
            controller_port=controller_port,
            cache=self.cache,
            log=self.folder.log("kafka"),
            locked=jars.read_lock(jars.lock_file()),
            progress=self.jar_progress,
        )

    def _environment(self, name: str, ports: Mapping[str, int], where: Addresses) -> dict[str, str]:
        environment = {
            "HEADRACE_KAFKA_BOOTSTRAP": where.kafka_bootstrap,
            "HEADRACE_TOKEN_FILE": str(self.credentials.token_file(name)),
            "HEADRACE_TOKENS_FILE": str(self.folder.tokens),
            "HEADRACE_DATA": str(self.folder.scratch(name)),
            "PYTHONUNBUFFERED": "1",
            **service_parts.bytecode_environment(self.cache, os.environ),
            **service_parts.peer_environment(ports),
            **service_parts.listen_environment(name, ports),
        }
        if name in names.WITH_DATABASE:
            passwords = {role: self.credentials.password(role) for role in databases.roles(name)}
            database = databases.describe(name, admin_dsn=where.postgres_dsn, passwords=passwords)
            environment["HEADRACE_POSTGRES_DSN"] = database.service_dsn
            environment["HEADRACE_MIGRATION_DSN"] = database.migration_dsn
        if where.s3 is not None:
            environment["HEADRACE_S3_ENDPOINT"] = where.s3.endpoint
            environment["HEADRACE_S3_ACCESS_KEY"] = where.s3.access_key
            environment["HEADRACE_S3_SECRET_KEY"] = where.s3.secret_key
            environment["HEADRACE_S3_BUCKET"] = where.s3.bucket
        if name == "gateway":
            environment["HEADRACE_CONSOLE_CODE_FILE"] = str(self.folder.console_code)
            # Who enters by the one-time link acts as the operator, not as the gateway.
            environment["HEADRACE_PERSON_TOKEN_FILE"] = str(self.credentials.token_file(OPERATOR))
        return environment


def connection(where: Addresses) -> dict[str, object]:
    """Return what ``connection.json`` tells clients."""
    return {
        "version": 1,
        "addresses": where.grpc,
        "serving_url": where.serving_url,
        "gateway_url": where.gateway_url,
        "kafka_bootstrap": where.kafka_bootstrap,
        "s3_endpoint": where.s3.endpoint if where.s3 else "",
        "token_file": str(where.token_file),
    }


def _url(ports: Mapping[str, int], service: str) -> str:
    port = ports.get(f"{service}.http")
    return "" if port is None else f"http://127.0.0.1:{port}"
