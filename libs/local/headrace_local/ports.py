"""Ports: chosen once, remembered in the data folder, checked before every start."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable
from pathlib import Path

from headrace_local.errors import PortTaken
from headrace_local.files import read_json, write_json

_RANGE = range(20000, 32000)
"""Below the kernel's range for outgoing connections, so that a stopped stack's ports stay free."""


def assign(file: Path, names: Iterable[str], *, base: int | None = None) -> tuple[dict[str, int], list[str]]:
    """Return a port for each name, and notes about ports that had to change.

    Without ``base`` remembered ports are kept; one that is taken, or missing, is chosen anew and written to ``file``.
    With ``base`` the ports are ``base``, ``base + 1`` ... in the order of ``names``, and none is changed.

    Raises:
        PortTaken: a pinned port is in use.
    """
    names = list(names)
    if base is not None:
        ports = {name: base + offset for offset, name in enumerate(names)}
        _require_free(ports)
        write_json(file, ports)
        return ports, []
    remembered = _remembered(file)
    ports = dict(remembered)
    notes: list[str] = []
    for name in names:
        port = remembered.get(name)
        if port is not None and is_free(port):
            continue
        ports[name] = _choose(set(ports.values()))
        if port is not None:
            notes.append(f"port {port} of {name} is taken by another program; {name} moved to {ports[name]}")
    if ports != remembered:
        write_json(file, ports)
    return {name: ports[name] for name in names}, notes


def is_free(port: int) -> bool:
    """Return whether a server could listen on ``port`` of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _require_free(ports: dict[str, int]) -> None:
    for name, port in ports.items():
        if not is_free(port):
            raise PortTaken(
                f"port {port} for {name} is in use by another program; free it or choose another --port-base"
            )


def _remembered(file: Path) -> dict[str, int]:
    values = read_json(file) or {}
    return {name: value for name, value in values.items() if isinstance(value, int)}


def _choose(taken: set[int]) -> int:
    for port in random.SystemRandom().sample(_RANGE, k=len(_RANGE)):
        if port not in taken and is_free(port):
            return port
    raise PortTaken(f"no port between {_RANGE.start} and {_RANGE.stop - 1} is free")
