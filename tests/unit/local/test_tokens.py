"""The file of tokens: the stack's entries are written anew, everybody else's stay until they are revoked."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli import build
from headrace_kit.auth import Tokens
from headrace_kit.errors import Unauthenticated
from headrace_local.credentials import Credentials
from headrace_local.errors import TokensUnchanged, TokensUnreadable
from headrace_local.folder import DataFolder
from headrace_local.names import SERVICES
from headrace_local.tokens import TokensFile

ADA = "persons/7f3c"


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    found = DataFolder(tmp_path)
    found.secrets.mkdir()
    return found


@pytest.fixture
def started(folder: DataFolder) -> Credentials:
    """A stack that was started once."""
    made = Credentials(folder)
    made.write_tokens(SERVICES)
    return made


def principals(folder: DataFolder) -> list[object]:
    return [each["principal"] for each in TokensFile(folder.tokens).entries()]


def test_a_token_that_was_issued_lets_in_and_one_that_was_revoked_does_not(
    folder: DataFolder, started: Credentials
) -> None:
    file, servers = TokensFile(folder.tokens), Tokens(folder.tokens)
    token = file.issue(ADA, roles=["operator"])

    assert servers.principal(token).id == ADA
    assert servers.principal(token).roles == {"operator"}
    assert servers.principal(started.token_file("operator").read_text()).id == "persons/operator"
    assert token not in folder.tokens.read_text()
    assert file.revoke(ADA) == 1
    with pytest.raises(Unauthenticated):
        servers.principal(token)


def test_the_next_start_keeps_who_was_added_as_they_were_written(folder: DataFolder, started: Credentials) -> None:
    by_hand = {"sha256": "AB" * 32, "principal": "persons/byhand", "roles": [], "note": "until May"}
    entries = json.loads(folder.tokens.read_text())
    folder.tokens.write_text(json.dumps([by_hand, *entries]))
    token = TokensFile(folder.tokens).issue(ADA)
    own = len(entries)

    started.write_tokens(SERVICES)
    started.write_tokens(SERVICES)

    after = json.loads(folder.tokens.read_text())
    assert after[:own] == entries
    assert after[own] == by_hand
    assert Tokens(folder.tokens).principal(token).id == ADA


def test_an_operators_token_that_was_made_anew_takes_the_place_of_the_old_one(
    folder: DataFolder, started: Credentials
) -> None:
    old = started.token_file("operator").read_text()
    started.token_file("operator").unlink()

    started.write_tokens(SERVICES)

    with pytest.raises(Unauthenticated):
        Tokens(folder.tokens).principal(old)
    assert principals(folder).count("persons/operator") == 1


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"principal": "persons/x"}]', "[{]"])
def test_a_file_that_can_not_be_read_is_left_alone(folder: DataFolder, content: str) -> None:
    folder.tokens.write_text(content)
    for change in (
        lambda: Credentials(folder).write_tokens(SERVICES),
        lambda: TokensFile(folder.tokens).issue(ADA),
        lambda: TokensFile(folder.tokens).revoke(ADA),
    ):
        with pytest.raises(TokensUnreadable):
            change()
    assert folder.tokens.read_text() == content


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize("principal", ["persons/operator", "services/monitor", "Ada Lovelace", "persons/Ada", "ada"])
def test_the_stacks_own_and_names_get_no_token(folder: DataFolder, principal: str) -> None:
    before = folder.tokens.read_bytes()
    with pytest.raises(TokensUnchanged):
        TokensFile(folder.tokens).issue(principal)
    with pytest.raises(TokensUnchanged):
        TokensFile(folder.tokens).revoke(principal)
    assert folder.tokens.read_bytes() == before


@pytest.mark.usefixtures("started")
def test_a_person_is_no_service_and_a_program_may_be(folder: DataFolder) -> None:
    file = TokensFile(folder.tokens)
    with pytest.raises(TokensUnchanged):
        file.issue(ADA, roles=["operator", "service"])
    assert Tokens(folder.tokens).principal(file.issue("services/etl", roles=["service"])).roles == {"service"}


@pytest.mark.usefixtures("started")
def test_one_of_two_tokens_is_revoked_by_its_digest(folder: DataFolder) -> None:
    file = TokensFile(folder.tokens)
    lost, kept = file.issue(ADA), file.issue(ADA)
    digest = hashlib.sha256(lost.encode()).hexdigest()

    assert file.revoke(ADA, digest=digest[:12].upper()) == 1

    assert Tokens(folder.tokens).principal(kept).id == ADA
    with pytest.raises(TokensUnchanged):
        file.revoke(ADA, digest=digest[:12])


@pytest.mark.usefixtures("started")
def test_who_may_read_the_file_stays(folder: DataFolder) -> None:
    assert folder.tokens.stat().st_mode & 0o777 == 0o600
    folder.tokens.chmod(0o644)
    TokensFile(folder.tokens).issue(ADA)
    assert folder.tokens.stat().st_mode & 0o777 == 0o644


def _issue(path: Path, name: str) -> None:
    for _ in range(20):
        TokensFile(path).issue(f"persons/{name}")


def test_changes_at_the_same_time_lose_nothing(folder: DataFolder, started: Credentials) -> None:
    processes = [
        multiprocessing.get_context("spawn").Process(target=_issue, args=(folder.tokens, name)) for name in "abc"
    ]
    for each in processes:
        each.start()
    for _ in range(20):
        started.write_tokens(SERVICES)
    for each in processes:
        each.join(30)

    assert [principals(folder).count(f"persons/{name}") for name in "abc"] == [20, 20, 20]


@pytest.mark.usefixtures("started")
def test_the_command_line_issues_lists_and_revokes(folder: DataFolder) -> None:

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(build(), ["tokens", *arguments, "--data", str(folder.path)])
        return done.exit_code, done.output

    status, token = run("issue", ADA, "--role", "operator")
    assert (status, Tokens(folder.tokens).principal(token.strip()).id) == (0, ADA)
    listed = json.loads(run("list", "--json")[1])
    assert [each["principal"] for each in listed if each["roles"] == ["operator"]] == ["persons/operator", ADA]
    assert ADA in run("list")[1]
    assert run("revoke", ADA) == (0, f"1 token of {ADA} revoked\n")
    assert run("revoke", ADA)[0] == 1
    assert run("issue", "Ada Lovelace")[0] == 1
    elsewhere = CliRunner().invoke(build(), ["tokens", "list", "--file", str(folder.path / "none.json")])
    assert elsewhere.exit_code == 1
