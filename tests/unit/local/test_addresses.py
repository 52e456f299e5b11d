"""Connection URLs, external servers, and what each service is told of the others."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from headrace_local import credentials, databases, psql
from headrace_local.errors import LocalError
from headrace_local.external import from_environment
from headrace_local.folder import DataFolder, FolderLock
from headrace_local.services import bytecode_environment, listen_environment, peer_environment, port_names


def test_libpqs_variables_come_from_the_url() -> None:
    url = "postgresql://ada%40home:p%2Fw@db.example:6432/headrace?sslmode=require"

    assert psql.environment(url) == {
        "PGHOST": "db.example",
        "PGPORT": "6432",
        "PGUSER": "ada@home",
        "PGPASSWORD": "p/w",
        "PGDATABASE": "headrace",
        "PGCONNECT_TIMEOUT": "5",
        "PGSSLMODE": "require",
    }


def test_a_services_urls_keep_the_servers_host_and_parameters() -> None:
    passwords = {"headrace_tracking": "a", "headrace_tracking_owner": "b"}
    admin = "postgresql://root:pw@[::1]:5433/postgres?sslmode=require"

    database = databases.describe("tracking", admin_dsn=admin, passwords=passwords)

    assert database.service_dsn == "postgresql://headrace_tracking:a@[::1]:5433/headrace_tracking?sslmode=require"
    assert database.migration_dsn.startswith("postgresql://headrace_tracking_owner:b@[::1]:5433/headrace_tracking?")


def test_nothing_is_external_unless_it_is_set() -> None:
    assert from_environment({"HEADRACE_POSTGRES_DSN": "", "HEADRACE_S3_BUCKET": "b"}).names == frozenset()


def test_external_servers_are_read_from_the_environment() -> None:
    given = from_environment(
        {
            "HEADRACE_POSTGRES_DSN": "postgresql://x@y/z",
            "HEADRACE_KAFKA_BOOTSTRAP": "k:9092",
            "HEADRACE_S3_ENDPOINT": "https://s3.example/",
            "HEADRACE_S3_ACCESS_KEY": "key",
            "HEADRACE_S3_SECRET_KEY": "secret",
        }
    )

    assert given.names == {"postgres", "kafka", "s3"}
    assert given.s3 is not None
    assert (given.s3.endpoint, given.s3.bucket) == ("https://s3.example", "headrace")


def test_an_s3_endpoint_without_keys_is_refused() -> None:
    with pytest.raises(LocalError, match="HEADRACE_S3_SECRET_KEY is not"):
        from_environment({"HEADRACE_S3_ENDPOINT": "http://x", "HEADRACE_S3_ACCESS_KEY": "key"})


def test_a_service_hears_where_to_listen_and_where_the_others_are() -> None:
    ports = {name: 1000 + index for index, name in enumerate([*port_names("serving"), *port_names("registry")])}

    assert listen_environment("serving", ports) == {
        "HEADRACE_GRPC_LISTEN": "127.0.0.1:1000",
        "HEADRACE_HTTP_LISTEN": "127.0.0.1:1001",
        "HEADRACE_METRICS_LISTEN": "127.0.0.1:1002",
    }
    assert peer_environment(ports) == {
        "HEADRACE_SERVING_ADDRESS": "127.0.0.1:1000",
        "HEADRACE_REGISTRY_ADDRESS": "127.0.0.1:1003",
        "HEADRACE_SERVING_URL": "http://127.0.0.1:1001",
    }


def test_compiled_modules_move_to_the_cache_only_where_the_user_wants_none_beside_the_sources(tmp_path: Path) -> None:
    assert bytecode_environment(tmp_path, {}) == {}
    assert bytecode_environment(tmp_path, {"PYTHONDONTWRITEBYTECODE": "1"}) == {
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(tmp_path / "pycache"),
    }


def test_tokens_are_made_once_and_servers_get_their_digests_only(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    FolderLock(folder).acquire()
    folder.prepare()
    secrets = credentials.Credentials(folder)

    secrets.write_tokens(["registry"])
    secrets.write_tokens(["registry"])

    operator, registry = json.loads(folder.tokens.read_text())
    token = secrets.token_file("operator").read_bytes()
    assert operator == {
        "sha256": hashlib.sha256(token).hexdigest(),
        "principal": "persons/operator",
        "roles": ["operator"],
    }
    assert (registry["principal"], registry["roles"]) == ("services/registry", ["service"])
    assert registry["sha256"] != operator["sha256"]
    assert secrets.token_file("registry").stat().st_mode & 0o777 == 0o600


def test_a_console_code_is_kept_as_a_digest_and_replaced_by_the_next(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    FolderLock(folder).acquire()
    folder.prepare()
    secrets = credentials.Credentials(folder)

    first, second = secrets.console_link("http://gateway"), secrets.console_link("http://gateway")

    assert first != second
    code = second.removeprefix("http://gateway/enter?code=")
    assert folder.console_code.read_text() == hashlib.sha256(code.encode()).hexdigest()
    assert secrets.console_link("") == ""
    assert folder.console_code.stat().st_mode & 0o777 == 0o600
