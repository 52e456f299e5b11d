"""Make the platform's secrets once, beside compose.yaml: ``python compose/make_secrets.py``.

Needs Python's own library only. ``.env`` gets a password for each database role and for the object store; ``secrets/``
gets a token for the operator and for each service, ``tokens.json`` by which services verify them, and
``connection.json`` by which clients on this machine find the platform. What exists is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

SERVICES = ("tracking", "registry", "orchestrator", "serving", "monitor", "gateway")
GRPC_PORTS = {"tracking": 50051, "registry": 50052, "orchestrator": 50053, "serving": 50054, "monitor": 50055}
PASSWORDS = (
    "HEADRACE_ADMIN_PASSWORD",
    "HEADRACE_S3_PASSWORD",
    *(f"HEADRACE_{name.upper()}{owner}_PASSWORD" for name in GRPC_PORTS for owner in ("", "_OWNER")),
)


def main(folder: Path) -> None:
    """Make what is missing in ``folder``."""
    tokens = folder / "secrets"
    # Containers read the files as another user, by mounts of their own; on this machine the folder keeps others out.
    tokens.mkdir(mode=0o700, exist_ok=True)
    _write_passwords(folder / ".env")
    for name in ("operator", *SERVICES):
        if not (tokens / f"{name}.token").exists():
            (tokens / f"{name}.token").write_text(_secret())
    entries = [_entry(tokens, "operator", "persons/operator", "operator")]
    entries += [_entry(tokens, name, f"services/{name}", "service") for name in SERVICES]
    (tokens / "tokens.json").write_text(json.dumps([*entries, *_added(tokens / "tokens.json", entries)]))
    (tokens / "connection.json").write_text(json.dumps(_connection(tokens), indent=2))


def _write_passwords(path: Path) -> None:
    known = dict(line.split("=", 1) for line in path.read_text().split()) if path.exists() else {}
    text = "".join(f"{name}={known.get(name) or _secret()}\n" for name in PASSWORDS)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def _entry(tokens: Path, name: str, principal: str, role: str) -> dict[str, object]:
    digest = hashlib.sha256((tokens / f"{name}.token").read_bytes()).hexdigest()
    return {"sha256": digest, "principal": principal, "roles": [role]}


def _added(path: Path, own: list[dict[str, object]]) -> list[dict[str, object]]:
    """Entries of other principals than these, which `headrace tokens issue` or a person added."""
    known = json.loads(path.read_text()) if path.exists() else []
    return [each for each in known if each["principal"] not in {entry["principal"] for entry in own}]


def _connection(tokens: Path) -> dict[str, object]:
    return {
        "version": 1,
        "addresses": {name: f"127.0.0.1:{port}" for name, port in GRPC_PORTS.items()},
        "serving_url": "http://127.0.0.1:8080",
        "gateway_url": "http://127.0.0.1:8000",
        "kafka_bootstrap": "",
        "s3_endpoint": "http://127.0.0.1:9000",
        "token_file": str(tokens.absolute() / "operator.token"),
    }


def _secret() -> str:
    return os.urandom(24).hex()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
