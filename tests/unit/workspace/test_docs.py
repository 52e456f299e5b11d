"""The papers tell what is there: commands, events, topics, reasons, variables and links."""

from __future__ import annotations

import importlib
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main

from headrace.cli import build
from headrace_local.names import SERVICES, WITH_DATABASE
from headrace_local.topics import TOPICS

ROOT = Path(__file__).resolve().parents[3]
PAPERS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("compose/*.md"), *ROOT.glob("examples/**/*.md")]
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"(?:^|[;&|(\"]\s*|\$\()(?:\w+=\S+\s+)*headrace\s+((?:(?!\$\()[^|;&)])+)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
SHELLS = ("sh", "bash", "console")


@cache
def command_line() -> click.Group:
    found: Any = typer.main.get_command(build())  # Any: typer's group, whose base class differs between its versions
    return found  # type: ignore[no-any-return] # see above


def commands(text: str) -> list[list[str]]:
    """The arguments of each ``headrace ...`` in shell blocks and in code between words."""
    blocks = BLOCK.findall(text)
    lines = [line for language, block in blocks if language in SHELLS for line in block.splitlines()]
    lines += INLINE.findall(BLOCK.sub("", text))
    found = [match.group(1) for line in lines for match in COMMAND.finditer(line)]
    return [shlex.split(each.replace("'", "").replace('"', ""), comments=True) for each in found]


def faults(words: list[str]) -> list[str]:
    """What of a command line does not exist."""
    command: Any = command_line()
    rest = list(words)
    while hasattr(command, "commands"):
        if not rest or rest[0].startswith("-"):
            break
        name = rest.pop(0)
        if name not in command.commands:
            return [f"no command {name!r}"]
        command = command.commands[name]
    options = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
    given = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    return [f"no option {option!r}" for option in given if option not in options]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def source() -> str:
    folders = ("libs", "services")
    return "\n".join(path.read_text() for each in folders for path in (ROOT / each).rglob("*.py"))


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: str(paper.relative_to(ROOT)))
def test_commands_in_papers_exist(paper: Path) -> None:
    wrong = [(shlex.join(words), faults(words)) for words in commands(paper.read_text()) if faults(words)]
    assert wrong == []


def test_commands_are_found_and_judged() -> None:
    text = "Type `headrace up --detach`.\n```sh\nX=1 headrace models nothing\nheadrace log tail --sideways | cat\n```\n"
    assert [faults(words) for words in commands(text)] == [["no command 'nothing'"], ["no option '--sideways'"], []]


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: str(paper.relative_to(ROOT)))
def test_links_lead_somewhere(paper: Path) -> None:
    targets = [link.partition("#")[0] for link in LINK.findall(BLOCK.sub("", paper.read_text()))]
    missing = [link for link in targets if link and "://" not in link and not (paper.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("service", WITH_DATABASE)
def test_the_map_names_every_event_under_its_owner(service: str) -> None:
    row = re.search(rf"^\| {service} \| [^|]+ \| ([^|]+) \|", page("architecture.md"), re.MULTILINE)
    assert row
    types = importlib.import_module(f"headrace_{service}.events").EVENT_TYPES
    assert row[1].strip().split(", ") == [each.DESCRIPTOR.name for each in types]


def test_the_map_names_every_topic_with_its_partitions() -> None:
    rows = dict(re.findall(r"^\| `(headrace\.[\w.]+)`[^|]*\| [^|]+ \| (\d+)", page("architecture.md"), re.MULTILINE))
    wanted = {topic.name: str(topic.partitions) for topic in TOPICS}
    events = {name for name in wanted if name.endswith(".events.v1")}
    assert len(events) == len(WITH_DATABASE)
    assert rows == {
        name: count for name, count in wanted.items() if name not in events - {"headrace.tracking.events.v1"}
    }


def test_operations_explains_reasons_variables_and_metrics_that_exist() -> None:
    text = page("operations.md")
    known = source()
    named = set(re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \|", text, re.MULTILINE))
    reasons = {reason for each in named for reason in re.findall(r"`([A-Z_]+)`", each)}
    assert len(reasons) > 30
    assert [reason for reason in sorted(reasons) if f'"{reason}"' not in known] == []
    metrics = set(re.findall(r"`(headrace_[a-z_]+)", text))
    assert [name for name in sorted(metrics) if f'"{name}"' not in known] == []
    variables = set(re.findall(r"HEADRACE_([A-Z_]+)\b", text))
    fields = set(re.findall(r"^    (\w+):", known, re.MULTILINE))
    unknown = {each for each in variables if each.lower() not in fields and f"HEADRACE_{each}" not in known}
    assert unknown == set()


def test_the_readme_is_short_and_shows_the_loop() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150
    assert "make demo" in text
    assert "make test" in text
    assert "```mermaid" in text or "](docs/" in text
    assert all(f"services/{name}" in text or name in text for name in SERVICES)
