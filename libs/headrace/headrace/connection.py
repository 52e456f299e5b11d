"""Where the platform is and how to enter: found in the data folder that ``headrace up`` writes.

``connection.json`` lies in ``$HEADRACE_DATA``, or ``$XDG_STATE_HOME/headrace``, or ``~/.local/state/headrace``. Single
values of the environment go before it, so that a client without the folder needs no file at all: ``HEADRACE_TOKEN`` (or
``HEADRACE_TOKEN_FILE``), ``HEADRACE_TRACKING_ADDRESS`` and so on, ``HEADRACE_SERVING_URL``, ``HEADRACE_GATEWAY_URL``,
``HEADRACE_KAFKA_BOOTSTRAP``, ``HEADRACE_S3_ENDPOINT``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from headrace.errors import NotConnected

SERVICES: Final = ("tracking", "registry", "orchestrator", "serving", "monitor")
"""Services that answer gRPC."""
VERSION: Final = 1
"""Form of ``connection.json`` that is understood here."""
_HINT: Final = "run `headrace up`, or set HEADRACE_DATA to the data folder of a platform that runs"


@dataclass(frozen=True, slots=True)
class Connection:
    """Where everything listens.

    Attributes:
        addresses: Service -> ``host:port`` of its gRPC.
        token: The caller's token; empty when none was found.
        serving_url: Where serving answers REST; empty when it does not run.
        gateway_url: Where the console is; empty when it does not run.
        kafka_bootstrap: Where Kafka is; empty when unknown.
        s3_endpoint: Where the object store is; empty when unknown.
    """

    addresses: Mapping[str, str]
    token: str = field(repr=False)
    serving_url: str = ""
    gateway_url: str = ""
    kafka_bootstrap: str = ""
    s3_endpoint: str = ""

    def address(self, service: str) -> str:
        """Where a service answers gRPC.

        Raises:
            NotConnected: it is not known.
        """
        found = self.addresses.get(service, "")
        if not found:
            raise NotConnected(f"nothing is known of a running {service} service; {_HINT}", reason="SERVICE_UNKNOWN")
        return found


def data_folder(environment: Mapping[str, str] | None = None) -> Path:
    """The data folder of this user's platform, whether it exists or not."""
    env = os.environ if environment is None else environment
    if given := env.get("HEADRACE_DATA"):
        return Path(given).expanduser()
    state = env.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "headrace"


def find(folder: Path | None = None, environment: Mapping[str, str] | None = None) -> Connection:
    """Finds the platform.

    Args:
        folder: Its data folder; ``data_folder()`` by default.
        environment: The process's own by default.

    Raises:
        NotConnected: there is nothing to be found, or a file can not be read.
    """
    env = os.environ if environment is None else environment
    path = (folder or data_folder(env)) / "connection.json"
    given = {name: env.get(f"HEADRACE_{name.upper()}_ADDRESS", "") for name in SERVICES}
    named = {name: address for name, address in given.items() if address}
    stored = _stored(path, needed=not named)
    addresses = {str(name): str(address) for name, address in (stored.get("addresses") or {}).items() if address}
    return Connection(
        addresses={**addresses, **named},
        token=_token(env, str(stored.get("token_file") or "")),
        **{
            key: env.get(f"HEADRACE_{key.upper()}") or str(stored.get(key) or "")
            for key in ("serving_url", "gateway_url", "kafka_bootstrap", "s3_endpoint")
        },
    )


def _stored(path: Path, *, needed: bool) -> dict[str, Any]:  # Any: JSON
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if needed:
            raise NotConnected(f"no headrace was found: there is no {path}; {_HINT}") from None
        return {}
    except OSError as error:
        raise NotConnected(f"{path} can not be read: {error.strerror}", reason="CONNECTION_UNREADABLE") from error
    try:
        stored = orjson.loads(content)
        version = stored["version"]
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path} is damaged; `headrace down` and `headrace up` write it anew"
        raise NotConnected(message, reason="CONNECTION_UNREADABLE") from error
    if version != VERSION:
        message = f"{path} has form {version}, and this headrace knows form {VERSION}: install the platform's version"
        raise NotConnected(message, reason="CONNECTION_VERSION")
    return dict(stored)


def _token(env: Mapping[str, str], stored: str) -> str:
    if token := env.get("HEADRACE_TOKEN", "").strip():
        return token
    file = env.get("HEADRACE_TOKEN_FILE") or stored
    if not file:
        return ""
    try:
        return Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise NotConnected(f"the token file {file} can not be read: {error}", reason="TOKEN_UNREADABLE") from error
