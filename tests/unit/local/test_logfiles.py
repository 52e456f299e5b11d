from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from headrace_local.errors import UnknownPart
from headrace_local.folder import DataFolder
from headrace_local.logfiles import read
from headrace_local.process import rotate, tail


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    found = DataFolder(tmp_path)
    found.logs.mkdir()
    found.log("kafka").write_text("one\ntwo\nthree\n")
    found.log("tracking").write_text("alpha\n")
    return found


def test_the_last_lines_of_one_log(folder: DataFolder) -> None:
    assert list(read(folder, "kafka", lines=2, follow=False)) == ["two", "three"]
    assert list(read(folder, "kafka", lines=0, follow=False)) == []


def test_all_logs_name_the_part_before_each_line(folder: DataFolder) -> None:
    assert list(read(folder, None, lines=1, follow=False)) == ["kafka        three", "tracking     alpha"]


def test_following_yields_whole_lines_as_they_are_added(folder: DataFolder) -> None:
    lines = read(folder, "kafka", lines=1, follow=True)
    assert next(lines) == "three"
    with folder.log("kafka").open("a") as log:
        log.write("four\nfive\nsi")
        log.flush()
        assert list(itertools.islice(lines, 2)) == ["four", "five"]
        log.write("x\n")
        log.flush()
        assert next(lines) == "six"


def test_following_survives_a_log_that_begins_anew(folder: DataFolder) -> None:
    lines = read(folder, "kafka", lines=1, follow=True)
    assert next(lines) == "three"
    folder.log("kafka").write_text("new\n")

    assert next(lines) == "new"


def test_an_unknown_log_is_told_with_the_known(folder: DataFolder) -> None:
    with pytest.raises(UnknownPart, match="no log is called kafak; there are kafka, tracking"):
        list(read(folder, "kafak", lines=1, follow=False))


def test_the_tail_of_no_log_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "absent") == ""


def test_a_log_over_its_limit_is_kept_once_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    with log.open("a") as writer:
        writer.write("old\n")
        writer.flush()
        rotate(log, limit_bytes=100)
        assert log.read_text() == "old\n"

        rotate(log, limit_bytes=1)
        writer.write("new\n")
        writer.flush()

    assert log.read_text() == "new\n"
    assert (tmp_path / "part.log.1").read_text() == "old\n"
    rotate(tmp_path / "absent.log", limit_bytes=1)
