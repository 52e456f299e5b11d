"""The six services as child processes: their environment and their readiness."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace_local.names import WITH_DATABASE, WITH_GRPC, WITH_HTTP
from headrace_local.part import Timing
from headrace_local.process import Command


def port_names(service: str) -> list[str]:
    """Return the names of the ports ``service`` listens on, as kept in the data folder."""
    kinds = [kind for kind, users in (("grpc", WITH_GRPC), ("http", WITH_HTTP)) if service in users]
    return [f"{service}.{kind}" for kind in (*kinds, "metrics")]


@dataclass(frozen=True, slots=True)
class Service:
    """One service process."""

    name: str
    environment: Mapping[str, str]
    ports: Mapping[str, int]
    """By port name."""
    scratch: Path

    timing = Timing(ready_within_s=90, stop_within_s=25)

    @property
    def address(self) -> str:
        """The port clients use: gRPC, or HTTP where there is no gRPC."""
        kind = "grpc" if self.name in WITH_GRPC else "http"
        return f"127.0.0.1:{self.ports[f'{self.name}.{kind}']}"

    async def prepare(self) -> Command:
        """Return the service's command."""
        self.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        # -P: nothing in the scratch folder may pass for a module.
        return Command([sys.executable, "-P", "-m", f"headrace_{self.name}"], env=self.environment, cwd=self.scratch)

    async def is_ready(self) -> bool:
        """Whether ``/readyz`` of its metrics port answers 200: it serves and reaches what it needs."""
        return await http_status(self.ports[f"{self.name}.metrics"], "/readyz") == 200

    async def stopped(self) -> None:
        """Nothing to do."""


def listen_environment(service: str, ports: Mapping[str, int]) -> dict[str, str]:
    """Return the variables that tell ``service`` where to listen."""
    return {
        f"HEADRACE_{name.rpartition('.')[2].upper()}_LISTEN": f"127.0.0.1:{ports[name]}" for name in port_names(service)
    }


def peer_environment(ports: Mapping[str, int]) -> dict[str, str]:
    """Return the variables that tell every service where the others are; absent services are left out."""
    peers = {
        f"HEADRACE_{service.upper()}_ADDRESS": f"127.0.0.1:{ports[f'{service}.grpc']}"
        for service in WITH_DATABASE
        if f"{service}.grpc" in ports
    }
    urls = {
        f"HEADRACE_{service.upper()}_URL": f"http://127.0.0.1:{ports[f'{service}.http']}"
        for service in WITH_HTTP
        if f"{service}.http" in ports
    }
    return {**peers, **urls}


def bytecode_environment(cache: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return variables that have compiled modules kept in ``cache`` where the user wants none beside the sources.

    Without compiled modules a service takes 1.6 s to import its libraries, with them 0.7 s.
    """
    if not inherited.get("PYTHONDONTWRITEBYTECODE"):
        return {}
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache / "pycache")}


async def http_status(port: int, path: str, *, within_s: float = 3.0) -> int | None:
    """Return the status a loopback HTTP server gives to ``GET path``, or ``None`` when it gives none."""
    writer = None
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            line = await reader.readline()
        return int(line.split()[1])
    except (OSError, TimeoutError, ValueError, IndexError):
        return None
    finally:
        if writer is not None:
            writer.close()
