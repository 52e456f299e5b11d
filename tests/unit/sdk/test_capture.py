"""What a run captures by itself."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from headrace.tracking import capture
from headrace.tracking.capture import MAX_FILE_BYTES, capture_code, capture_environment
from headrace.tracking.datasets import describe_dataset
from headrace.tracking.evaluation import confusion_matrix, importances_json, importances_svg


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-b", "main")
    (tmp_path / "train.py").write_text("rate = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "remote", "add", "origin", "https://name:secret@example.org/repo.git")
    return tmp_path


def test_a_clean_tree_has_a_commit_and_no_diff(repository: Path) -> None:
    code = capture_code(repository)
    assert len(code.version.commit) == 40
    assert (code.version.branch, code.version.dirty, code.diff) == ("main", False, b"")
    assert code.version.command_line.startswith(sys.executable.replace(str(Path.home()), "~"))


def test_credentials_never_leave_with_the_remote(repository: Path) -> None:
    assert capture_code(repository).version.remote == "https://example.org/repo.git"


def test_the_home_folder_s_name_does_not_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "ada.lovelace"
    monkeypatch.setenv("HOME", str(home))
    arguments = [str(home / "train.py"), f"--data={home}/d", f"{home}-not/x", f"{home}/with space", str(home)]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(sys, "orig_argv", ["python", *arguments])
    monkeypatch.setattr(sys, "executable", f"{home}/.venv/bin/python")
    version = capture_code(tmp_path).version
    assert version.command_line == f"~/.venv/bin/python ~/train.py --data=~/d {home}-not/x '~/with space' ~"
    assert version.entrypoint == "~/train.py"


def test_uncommitted_changes_are_kept_as_a_diff(repository: Path) -> None:
    (repository / "train.py").write_text("rate = 2\n")
    code = capture_code(repository)
    assert code.version.dirty
    assert b"+rate = 2" in code.diff


def test_files_that_are_not_tracked_are_kept_whole_and_the_index_is_left_alone(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (repository / ".gitignore").write_text("ignored.py\n")
    (repository / "sub").mkdir()
    files = {
        "sub/new.py": b"x = 1\n",
        "empty.py": b"",
        "with space \u00fc.bin": b"\x00\x01\xff" * 100,
        ".gitignore": b"ignored.py\n",
    }
    for name, content in files.items():
        (repository / name).write_bytes(content)
    (repository / "ignored.py").write_text("no")
    (repository / "link").symlink_to("train.py")
    (repository / "large.bin").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    (repository / "train.py").write_text("rate = 2\n")
    before = (repository / ".git" / "index").read_bytes()
    code = capture_code(repository / "sub")
    assert (repository / ".git" / "index").read_bytes() == before
    assert code.version.working_folder == "sub"
    assert code.diff.startswith(f"# left out: large.bin ({MAX_FILE_BYTES + 1} bytes)\n".encode())
    again = tmp_path_factory.mktemp("again")
    git(again, "clone", str(repository), ".")
    (again / "patch").write_bytes(code.diff)
    git(again, "apply", "patch")
    assert {name: (again / name).read_bytes() for name in files} == files
    assert (again / "train.py").read_text() == "rate = 2\n"
    assert (again / "link").is_symlink()
    assert not (again / "ignored.py").exists()


def test_a_diff_that_is_too_large_is_left_out_whole(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MAX_DIFF_BYTES", 100)
    (repository / "train.py").write_text("rate = 2\n" * 100)
    code = capture_code(repository)
    assert code.version.dirty
    assert code.diff.startswith(b"# left out: the changes since the commit (")
    assert b"rate" not in code.diff


def test_packages_tell_where_they_came_from() -> None:
    sources = {each.name: each.source for each in capture_environment().packages}
    assert sources["numpy"] == ""
    root = str(Path(capture.__file__).parents[2]).replace(str(Path.home()), "~")
    assert sources["headrace"] == f"editable:{root}"


def test_outside_a_repository_there_is_no_commit(tmp_path: Path) -> None:
    code = capture_code(tmp_path)
    assert (code.version.commit, code.diff) == ("", b"")


def test_the_environment_names_packages_and_their_digest() -> None:
    environment = capture_environment()
    assert {each.name: each.version for each in environment.packages}["numpy"] == version("numpy")
    assert len(environment.packages_digest) == 64
    assert environment.memory_bytes > 0
    assert environment.packages_digest == capture_environment().packages_digest


def test_the_same_table_has_the_same_digest_in_every_library() -> None:
    columns = {"a": np.array([1.5, 2.5]), "b": np.array([1, 2])}
    digests = {
        describe_dataset(table, name="t").digest
        for table in (columns, pd.DataFrame(columns), pl.DataFrame(columns), pa.table(columns))
    }
    assert len(digests) == 1


def test_a_dataset_has_rows_and_a_schema() -> None:
    dataset = describe_dataset(pd.DataFrame({"a": [1.5, 2.5], "b": ["x", "y"]}), name="t", context="test")
    assert dataset.rows == 2
    assert next((each.name, each.type) for each in dataset.columns) == ("a", "float64")


def test_other_content_has_another_digest(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("a,b\n1,2\n")
    first = describe_dataset(file, name="t").digest
    file.write_text("a,b\n1,3\n")
    assert describe_dataset(file, name="t").digest != first
    moved = {"a": np.array([1, 2]), "b": np.array([3, 4])}
    swapped = {"a": np.array([3, 4]), "b": np.array([1, 2])}
    assert describe_dataset(moved, name="t").digest != describe_dataset(swapped, name="t").digest


def test_what_is_no_dataset_is_refused() -> None:
    with pytest.raises(TypeError, match="not int"):
        describe_dataset(3, name="t")


def test_a_confusion_matrix_counts_by_true_and_predicted_class() -> None:
    matrix = confusion_matrix(["cat", "dog", "dog"], ["cat", "cat", "dog"])
    assert orjson.loads(matrix.to_json()) == {"labels": ["cat", "dog"], "counts": [[1, 0], [1, 1]]}
    assert b"<svg" in matrix.to_svg()
    with pytest.raises(ValueError, match="not among the labels"):
        confusion_matrix([0, 1], [0, 2], labels=[0, 1])


def test_importances_are_ordered_and_names_are_escaped_in_the_picture() -> None:
    importances = {"small": 1.0, "<b>": 3.0}
    assert [each["feature"] for each in orjson.loads(importances_json(importances))] == ["<b>", "small"]
    assert b"&lt;b&gt;" in importances_svg(importances)
