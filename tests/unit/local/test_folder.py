from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace_local.errors import DataFolderInUse, DataFolderVersion
from headrace_local.files import read_json, write_json
from headrace_local.folder import DataFolder, FolderLock, default_path, owner_of

HOLD = """
import pathlib, sys
from headrace_local.folder import DataFolder, FolderLock
FolderLock(DataFolder(pathlib.Path(sys.argv[1]))).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


def test_the_default_is_below_the_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HEADRACE_DATA", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "headrace"

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_path() == Path("/home/ada/.local/state/headrace")

    monkeypatch.setenv("HEADRACE_DATA", "/elsewhere")
    assert default_path() == Path("/elsewhere")


def test_a_new_folder_gets_an_id_that_it_keeps(folder: DataFolder) -> None:
    FolderLock(folder).acquire()

    assert folder.prepare() == folder.prepare()
    assert folder.path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("marker", [{"version": 2, "id": "x"}, {"version": "1", "id": "x"}, {"version": 1}, {}])
def test_another_layout_is_refused(folder: DataFolder, marker: dict[str, object]) -> None:
    folder.path.mkdir()
    write_json(folder.marker, marker)

    with pytest.raises(DataFolderVersion, match="made by another version of headrace"):
        folder.prepare()
    with pytest.raises(DataFolderVersion, match="made by another version of headrace"):
        folder.check_version()


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_broken_version_file_is_refused(folder: DataFolder, text: str) -> None:
    folder.path.mkdir()
    folder.marker.write_text(text)

    with pytest.raises(DataFolderVersion, match="cannot be read"):
        folder.prepare()


def test_a_folder_of_something_else_is_refused_and_left_alone(folder: DataFolder) -> None:
    folder.path.mkdir()
    (folder.path / "thesis.txt").write_text("chapter 1")

    with pytest.raises(DataFolderVersion, match=r"holds thesis\.txt and no headrace\.json"):
        folder.prepare()

    assert [item.name for item in folder.path.iterdir()] == ["thesis.txt"]


def test_the_lock_names_its_holder_and_ends_with_it(folder: DataFolder) -> None:
    assert owner_of(folder) is None
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()

        owner = owner_of(folder)
        assert owner is not None
        assert owner.pid == holder.pid
        with pytest.raises(DataFolderInUse, match=f"already run by process {holder.pid} since"):
            FolderLock(folder).acquire()

        holder.kill()

    assert owner_of(folder) is None
    FolderLock(folder).acquire()


def test_a_released_lock_can_be_taken_again(folder: DataFolder) -> None:
    lock = FolderLock(folder)
    lock.acquire()
    owner = owner_of(folder)
    assert owner is not None
    assert owner.pid == os.getpid()

    lock.release()
    lock.release()

    assert owner_of(folder) is None
    lock.acquire()


def test_json_files_are_whole_or_absent_and_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    assert read_json(file) is None

    write_json(file, {"a": 1})

    assert read_json(file) == {"a": 1}
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert [item.name for item in tmp_path.iterdir()] == ["file.json"]
    assert read_json(file) == {"a": 1}
