"""Finding the platform: its file, the environment, and what is said when there is nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.connection import data_folder, find
from headrace.errors import NotConnected

STORED: dict[str, Any] = {
    "version": 1,
    "addresses": {"tracking": "127.0.0.1:1", "registry": "127.0.0.1:2", "monitor": ""},
    "serving_url": "http://127.0.0.1:3",
    "gateway_url": "http://127.0.0.1:4",
    "kafka_bootstrap": "127.0.0.1:5",
    "s3_endpoint": "http://127.0.0.1:6",
}


def platform(folder: Path, **changes: object) -> dict[str, str]:
    (folder / "operator.token").write_text("secret-token\n")
    stored = {**STORED, "token_file": str(folder / "operator.token"), **changes}
    (folder / "connection.json").write_text(json.dumps(stored))
    return {"HEADRACE_DATA": str(folder)}


def test_everything_is_found_in_the_data_folder(tmp_path: Path) -> None:
    found = find(environment=platform(tmp_path))
    assert (found.address("tracking"), found.token) == ("127.0.0.1:1", "secret-token")
    assert (found.serving_url, found.gateway_url) == ("http://127.0.0.1:3", "http://127.0.0.1:4")
    assert (found.kafka_bootstrap, found.s3_endpoint) == ("127.0.0.1:5", "http://127.0.0.1:6")
    assert "secret-token" not in repr(found)


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    changes = {"HEADRACE_TOKEN": "other", "HEADRACE_TRACKING_ADDRESS": "10.0.0.1:7", "HEADRACE_SERVING_URL": "http://s"}
    found = find(environment={**platform(tmp_path), **changes})
    assert (found.address("tracking"), found.address("registry")) == ("10.0.0.1:7", "127.0.0.1:2")
    assert (found.token, found.serving_url) == ("other", "http://s")


def test_the_environment_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("mine")
    environment = {
        "HEADRACE_DATA": str(tmp_path / "absent"),
        "HEADRACE_TOKEN_FILE": str(tmp_path / "t"),
        "HEADRACE_REGISTRY_ADDRESS": "10.0.0.1:7",
    }
    found = find(environment=environment)
    assert (found.address("registry"), found.token) == ("10.0.0.1:7", "mine")


def test_nothing_running_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(NotConnected, match="run `headrace up`"):
        find(tmp_path / "absent", environment={})


def test_a_service_that_does_not_run_is_named(tmp_path: Path) -> None:
    found = find(environment=platform(tmp_path))
    for service in ("monitor", "serving"):
        with pytest.raises(NotConnected, match=f"running {service} service"):
            found.address(service)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3", "null", "\x00"])
def test_a_damaged_file_is_a_clear_error(tmp_path: Path, content: str) -> None:
    environment = platform(tmp_path)
    (tmp_path / "connection.json").write_text(content)
    with pytest.raises(NotConnected, match="is damaged") as caught:
        find(environment=environment)
    assert caught.value.reason == "CONNECTION_UNREADABLE"


def test_a_file_of_another_form_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(NotConnected, match="form 2") as caught:
        find(environment=platform(tmp_path, version=2))
    assert caught.value.reason == "CONNECTION_VERSION"


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotConnected, match="gone"):
        find(environment=platform(tmp_path, token_file=str(tmp_path / "gone")))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HEADRACE_DATA": "/a", "XDG_STATE_HOME": "/b"}, Path("/a")),
        ({"XDG_STATE_HOME": "/b"}, Path("/b/headrace")),
        ({}, Path.home() / ".local" / "state" / "headrace"),
    ],
)
def test_the_data_folder(environment: dict[str, str], expected: Path) -> None:
    assert data_folder(environment) == expected
