"""Archives of runs and models: what was changed, and what is made to harm, is refused before anything is taken."""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from headrace.bundles import container
from headrace.bundles.container import BundleDamaged, Reader, Writer
from headrace.errors import AlreadyExists

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def write(path: Path) -> Path:
    with Writer(path) as writer:
        writer.text("runs/a.json", iter([b"{}"]))
        writer.blob(DIGEST, lambda out: out(CONTENT))
        writer.finish(runs=[])
    return path


def crafted(
    path: Path, members: dict[str, bytes], *, change: Callable[[zipfile.ZipInfo], None] = lambda _: None
) -> Path:
    """A zip as an attacker makes it: its manifest is in order, whatever its members are."""
    listed = [
        {"path": name, "sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
        for name, content in members.items()
    ]
    manifest = {"format": container.FORMAT, "version": container.VERSION, "members": listed}
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(container.MANIFEST, orjson.dumps(manifest))
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o644 << 16
            change(info)
            file.writestr(info, content)
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    with Reader(write(tmp_path / "a.zip")) as reader:
        assert reader.text("runs/a.json") == b"{}"
        with reader.file(f"objects/{DIGEST}") as path:
            assert path.read_bytes() == CONTENT
        assert not path.exists()


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a.zip").read_bytes() == write(tmp_path / "b.zip").read_bytes()


def test_nothing_is_written_over_and_nothing_half_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("mine")
    with pytest.raises(AlreadyExists):
        write(tmp_path / "a.zip")
    with pytest.raises(KeyError), Writer(tmp_path / "b.zip"):
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    assert (tmp_path / "a.zip").read_text() == "mine"


@pytest.mark.parametrize("at", ["runs/a.json", f"objects/{DIGEST}"])
def test_a_byte_that_was_changed_is_found(tmp_path: Path, at: str) -> None:
    path = write(tmp_path / "a.zip")
    with zipfile.ZipFile(path) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    members[at] = members[at][:-1] + b"!"
    with zipfile.ZipFile(path, "w") as file:  # its own checksums are in order
        for name, content in members.items():
            file.writestr(name, content)
    with Reader(path) as reader, pytest.raises(BundleDamaged, match="was changed"):
        reader.text(at)
    with Reader(path) as reader, pytest.raises(BundleDamaged, match="was changed"), reader.file(at):
        pass


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "a\\..\\b", "C:/a", "a//b", "./a", "a/", ""])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    path = crafted(tmp_path / "a.zip", {name: b"x"})
    with pytest.raises(BundleDamaged):
        Reader(path)
    assert [each.name for each in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    def change(info: zipfile.ZipInfo) -> None:
        info.external_attr = (kind | 0o777) << 16

    with pytest.raises(BundleDamaged, match="no plain file"):
        Reader(crafted(tmp_path / "a.zip", {"runs/a.json": b"/etc/passwd"}, change=change))


def test_an_object_that_is_compressed_is_a_bomb(tmp_path: Path) -> None:
    content = bytes(50_000_000)

    def change(info: zipfile.ZipInfo) -> None:
        info.compress_type = zipfile.ZIP_DEFLATED

    path = crafted(tmp_path / "a.zip", {f"objects/{hashlib.sha256(content).hexdigest()}": content}, change=change)
    assert path.stat().st_size < 100_000
    with pytest.raises(BundleDamaged, match="compressed"):
        Reader(path)


def test_texts_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_TEXT_BYTES", 1_000_000)

    def change(info: zipfile.ZipInfo) -> None:
        info.compress_type = zipfile.ZIP_DEFLATED

    path = crafted(tmp_path / "a.zip", {f"runs/{each}.json": bytes(600_000) for each in "ab"}, change=change)
    with pytest.raises(BundleDamaged, match="larger"):
        Reader(path)


def test_a_text_that_lies_about_its_size_is_cut_off(tmp_path: Path) -> None:
    def change(info: zipfile.ZipInfo) -> None:
        info.compress_type = zipfile.ZIP_DEFLATED

    path = crafted(tmp_path / "a.zip", {"runs/a.json": bytes(10_000_000)}, change=change)
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = content.rindex(signature)
        content[at + offset : at + offset + 4] = struct.pack("<I", 100)
    path.write_bytes(content)
    with Reader(path) as reader, pytest.raises(BundleDamaged):
        reader.text("runs/a.json")


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    path = crafted(tmp_path / "a.zip", {"runs/a.json": b"x" * 1000, "runs/b.json": b"x" * 1000})
    content = bytearray(path.read_bytes())
    first, second = content.index(b"PK\x01\x02"), content.rindex(b"PK\x01\x02")
    middle = content.index(b"PK\x01\x02", first + 1)
    content[second + 42 : second + 46] = content[middle + 42 : middle + 46]  # both begin at the same place
    path.write_bytes(content)
    with pytest.raises(BundleDamaged, match="overlap"):
        Reader(path)


def test_a_name_is_there_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as file:
        file.writestr("runs/a.json", b"other")
    with pytest.raises(BundleDamaged, match="twice"):
        Reader(path)


@pytest.mark.parametrize("change", ["one more", "one less", "another form", "no manifest", "no zip", "an empty file"])
def test_what_is_not_as_its_manifest_says_is_refused(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "a.zip")
    with zipfile.ZipFile(path) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    match change:
        case "one more":
            members["runs/b.json"] = b"{}"
        case "one less":
            del members["runs/a.json"]
        case "another form":
            members["manifest.json"] = members["manifest.json"].replace(b'"version": 1', b'"version": 2')
        case "no manifest":
            del members["manifest.json"]
        case _:
            path.write_bytes(b"PK\x03\x04 or not" if change == "no zip" else b"")
    if change not in ("no zip", "an empty file"):
        with zipfile.ZipFile(path, "w") as file:
            for name, content in members.items():
                file.writestr(name, content)
    with pytest.raises(BundleDamaged):
        Reader(path)


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(BundleDamaged, match="encrypted"):
        Reader(path)
