"""Lines of a process's log: JSON, one event a line, and no secret in any of them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from headrace_kit.logs import redact

PROGRAM = """
import logging
import structlog
from headrace_kit.logs import configure_logs
configure_logs("registry", "info")
log = structlog.get_logger("headrace_kit.test")
structlog.contextvars.bind_contextvars(method="/Get", principal="persons/operator")
log.info("rpc", code="OK", path=object(), api_key="k-1", dsn="postgresql://me:pw-2@h/x")
log.debug("unseen")
logging.getLogger("some.library").warning("it says %s", "https://me:pw-3@h/x")
try:
    raise ValueError("inside")
except ValueError:
    log.exception("failed", token="t-4")
"""


def test_every_line_is_json_with_its_ids_and_without_secrets() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=50)
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines][0::2] == ["rpc", "failed"]
    for line in lines:
        assert (line["service"], line["method"], line["principal"]) == ("registry", "/Get", "persons/operator")
        assert line["timestamp"].endswith("Z")
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    assert "ValueError: inside" in lines[2]["exception"]
    for secret in ("k-1", "pw-2", "pw-3", "t-4"):
        assert secret not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ({"token": "x"}, {"token": "[redacted]"}),
        ({"HEADRACE_S3_SECRET_KEY": "x"}, {"HEADRACE_S3_SECRET_KEY": "[redacted]"}),
        ({"authorization": "Bearer x"}, {"authorization": "[redacted]"}),
        ({"url": "http://u:p@h/?a=b"}, {"url": "http://u:[redacted]@h/?a=b"}),
        ({"url": "http://h:80/a@b"}, {"url": "http://h:80/a@b"}),
        ({"position": 3}, {"position": 3}),
    ],
)
def test_what_is_blanked(line: dict[str, Any], shown: dict[str, Any]) -> None:
    assert redact(None, "info", line) == shown
