"""Sessions: the code is good for once, the cookie for a week, and only as it was given."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from headrace_gateway.sessions import LIFETIME_S, Sessions

CODE = "a-code"


@pytest.fixture
def code_file(tmp_path: Path) -> Path:
    path = tmp_path / "code"
    path.write_text(hashlib.sha256(CODE.encode()).hexdigest())
    return path


@pytest.fixture
def sessions(tmp_path: Path, code_file: Path) -> Sessions:
    return Sessions(tmp_path / "gateway", code_file)


def entered(sessions: Sessions) -> str:
    cookie = sessions.enter(CODE)
    assert cookie is not None
    return cookie


def test_a_code_opens_one_session_and_no_second(sessions: Sessions, code_file: Path) -> None:
    cookie = entered(sessions)

    assert sessions.session(cookie) is not None
    assert sessions.enter(CODE) is None
    assert not code_file.exists()


@pytest.mark.parametrize("code", ["", "a-cod", "a-code ", "A-CODE", "\udcff", "x" * 100_000])
def test_a_wrong_code_opens_nothing_and_leaves_the_right_one_good(sessions: Sessions, code: str) -> None:
    assert sessions.enter(code) is None
    assert sessions.enter(CODE) is not None


def test_without_a_code_file_nobody_enters(tmp_path: Path) -> None:
    assert Sessions(tmp_path, None).enter(CODE) is None
    assert Sessions(tmp_path, tmp_path / "missing").enter(CODE) is None


def test_an_empty_code_file_lets_nobody_in(tmp_path: Path, code_file: Path) -> None:
    code_file.write_text("")

    assert Sessions(tmp_path, code_file).enter("") is None


def test_a_session_outlives_a_restart_but_not_its_week(tmp_path: Path, sessions: Sessions) -> None:
    cookie = entered(sessions)

    def after(seconds: float) -> Sessions:
        return Sessions(tmp_path / "gateway", None, clock=lambda: time.time() + seconds)

    assert after(LIFETIME_S - 60).session(cookie) == sessions.session(cookie)
    assert after(LIFETIME_S + 1).session(cookie) is None


def test_another_gateways_cookie_is_nobodys(tmp_path: Path, sessions: Sessions) -> None:
    cookie = entered(sessions)

    assert Sessions(tmp_path / "another", None).session(cookie) is None


@pytest.mark.parametrize(
    "cookie", ["", ".", "..", "a.b.c", "a.9999999999.", "9" * 10_000, "a." + "9" * 10_000 + ".b", "é.1.ü"]
)
def test_a_made_up_cookie_is_nobodys(sessions: Sessions, cookie: str) -> None:
    assert sessions.session(cookie) is None


def test_a_cookie_of_later_expiry_is_nobodys(sessions: Sessions) -> None:
    identity, expires, signature = entered(sessions).split(".")

    assert sessions.session(f"{identity}.{int(expires) + 1}.{signature}") is None


def test_two_sessions_have_two_form_tokens(tmp_path: Path, sessions: Sessions, code_file: Path) -> None:
    first = sessions.session(entered(sessions))
    code_file.write_text(hashlib.sha256(CODE.encode()).hexdigest())
    second = sessions.session(entered(sessions))

    assert first is not None
    assert second is not None
    assert first.csrf != second.csrf
    assert first.csrf not in entered_key(tmp_path)


def entered_key(folder: Path) -> str:
    return (folder / "gateway" / "session.key").read_bytes().hex()


def test_nobody_else_reads_the_key(tmp_path: Path, sessions: Sessions) -> None:
    entered(sessions)

    assert (tmp_path / "gateway" / "session.key").stat().st_mode & 0o777 == 0o600
