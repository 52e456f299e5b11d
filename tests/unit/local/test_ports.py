from __future__ import annotations

import socket
from pathlib import Path

import pytest

from headrace_local.errors import PortTaken
from headrace_local.ports import assign, is_free


def test_ports_are_distinct_free_and_the_same_next_time(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"

    first, notes = assign(file, ["a", "b", "c"])
    second, _ = assign(file, ["c", "a", "b"])

    assert first == second
    assert len(set(first.values())) == 3
    assert all(is_free(port) for port in first.values())
    assert notes == []


def test_a_part_that_comes_later_leaves_the_others_where_they_were(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first, _ = assign(file, ["a"])

    both, _ = assign(file, ["a", "b"])
    alone, _ = assign(file, ["b"])

    assert both["a"] == first["a"]
    assert alone == {"b": both["b"]}


def test_a_taken_port_moves_and_is_told(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first, _ = assign(file, ["a", "b"])

    with socket.create_server(("127.0.0.1", first["a"])):
        moved, notes = assign(file, ["a", "b"])

    assert moved["a"] != first["a"]
    assert moved["b"] == first["b"]
    assert len(notes) == 1
    assert assign(file, ["a", "b"]) == (moved, [])


def test_pinned_ports_are_consecutive_and_never_moved(tmp_path: Path) -> None:
    base = 31_500
    assert assign(tmp_path / "ports.json", ["a", "b"], base=base)[0] == {"a": base, "b": base + 1}

    with socket.create_server(("127.0.0.1", base + 1)), pytest.raises(PortTaken, match=f"port {base + 1} for b"):
        assign(tmp_path / "ports.json", ["a", "b"], base=base)


def test_a_listener_on_any_address_makes_a_port_taken() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert not is_free(server.getsockname()[1])
