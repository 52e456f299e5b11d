"""The file: a zip whose manifest names every other member with its SHA-256 and size.

Nothing is ever extracted under a name that the file gives: members are read as streams, held to digest and size, and
go to a temporary file of the reader's own. What could only be meant to harm is refused before anything is read.

Objects (bytes of artifacts) are stored as they are and texts compressed, and no two members overlap; so what comes out
is never much more than the file itself, but for texts, which have a limit.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import orjson

from headrace.errors import AlreadyExists, InvalidArgument

MANIFEST: Final = "manifest.json"
FORMAT: Final = "headrace-archive"
VERSION: Final = 1
OBJECTS: Final = "objects/"
MAX_MANIFEST_BYTES: Final = 256 * 1024 * 1024
MAX_TEXT_BYTES: Final = 4 * 1024**3
"""Most that all texts of a file together may come to."""
MAX_MEMBERS: Final = 1_000_000
_CHUNK: Final = 1 << 20
Fill = Callable[[Callable[[bytes], object]], object]
"""Writes the bytes of a member by the function it is given."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


class BundleDamaged(InvalidArgument):
    """The file is no archive of headrace, was changed, or is made to harm. Nothing of it was taken."""

    default_reason = "ARCHIVE_DAMAGED"


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the file: its path, the SHA-256 (hex) of its bytes, and their number."""

    path: str
    sha256: str
    size_bytes: int


class Writer:
    """Writes a file that appears whole or not at all. Equal content gives equal bytes. A context manager.

    Raises:
        AlreadyExists: There is a file of that name.
    """

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise AlreadyExists(f"{path} exists; it is not written over", field="output")
        self._path, self._members = path, dict[str, Member]()
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(descriptor)
        self._partial = Path(name)
        self._zip = zipfile.ZipFile(self._partial, "w", allowZip64=True)

    def __contains__(self, path: str) -> bool:
        return path in self._members

    def count(self, prefix: str) -> int:
        """Members so far whose path begins so."""
        return sum(path.startswith(prefix) for path in self._members)

    def text(self, path: str, chunks: Iterator[bytes]) -> None:
        """Adds a member that is compressed."""
        self._add(path, zipfile.ZIP_DEFLATED, lambda write: [write(chunk) for chunk in chunks])

    def blob(self, sha256: str, fill: Fill) -> None:
        """Adds the bytes of a digest, once, which ``fill`` writes."""
        if f"{OBJECTS}{sha256}" not in self._members:
            self._add(f"{OBJECTS}{sha256}", zipfile.ZIP_STORED, fill)

    def finish(self, **about: Any) -> str:  # noqa: ANN401 - JSON
        """Writes the manifest; returns its SHA-256."""
        members = [asdict(self._members[path]) for path in sorted(self._members)]
        manifest = {"format": FORMAT, "version": VERSION, **about, "members": members}
        content = orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        self._add(MANIFEST, zipfile.ZIP_DEFLATED, lambda write: write(content))
        self._zip.close()
        self._partial.chmod(0o644)
        os.link(self._partial, self._path)  # fails where somebody else made it meanwhile
        self._partial.unlink()
        return hashlib.sha256(content).hexdigest()

    def _add(self, path: str, compression: int, fill: Fill) -> None:
        info = zipfile.ZipInfo(path, _EPOCH)
        info.compress_type, info.external_attr, info.create_system = compression, 0o644 << 16, 3
        digest, size = hashlib.sha256(), 0
        with self._zip.open(info, "w", force_zip64=True) as out:

            def write(chunk: bytes) -> None:
                nonlocal size
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)

            fill(write)
        self._members[path] = Member(path, digest.hexdigest(), size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        self._partial.unlink(missing_ok=True)


class Reader:
    """Reads a file. A context manager.

    Attributes:
        manifest: As it stands in the file.
        sha256: Its digest, by which one file is told from another.
        members: Every member but the manifest, by path.

    Raises:
        BundleDamaged: See there.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise BundleDamaged(f"{path} can not be read: {error}") from error
        try:
            self._infos = _judged(self._zip.infolist(), path.stat().st_size)
            content = self._content(MANIFEST, MAX_MANIFEST_BYTES)
            self.sha256 = hashlib.sha256(content).hexdigest()
            self.manifest, self.members = _understood(content)
            if set(self.members) != set(self._infos) - {MANIFEST}:
                raise BundleDamaged("its members are not those that its manifest names")
        except BaseException:
            self._zip.close()
            raise

    def text(self, path: str, *, most: int = MAX_TEXT_BYTES) -> bytes:
        """The bytes of a member. Raises BundleDamaged when they are not those of the manifest."""
        member = self._member(path)
        content = self._content(path, min(most, member.size_bytes))
        _require(member, len(content), hashlib.sha256(content).hexdigest())
        return content

    @contextmanager
    def file(self, path: str) -> Iterator[Path]:
        """A temporary file with the bytes of a member. Raises BundleDamaged as ``text`` does."""
        member, digest, size = self._member(path), hashlib.sha256(), 0
        with tempfile.TemporaryDirectory(prefix="headrace-archive-") as folder:
            target = Path(folder) / "content"
            with target.open("wb") as out, self._open(path) as source, _zip_errors(path):
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    if size > member.size_bytes:
                        break
                    out.write(chunk)
            _require(member, size, digest.hexdigest())
            yield target

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def _member(self, path: str) -> Member:
        if path not in self.members:
            raise BundleDamaged(f"it has no member {path[:200]!r}")
        return self.members[path]

    def _open(self, path: str) -> BinaryIO:
        with _zip_errors(path):
            found: Any = self._zip.open(self._infos[path])  # Any: zipfile says IO[bytes]
            return found  # type: ignore[no-any-return]

    def _content(self, path: str, most: int) -> bytes:
        if path not in self._infos:
            raise BundleDamaged(f"it has no member {path[:200]!r}")
        with self._open(path) as source, _zip_errors(path):
            content = source.read(most + 1)
        if len(content) > most:
            raise BundleDamaged(f"{path[:200]!r} is larger than it may be")
        return content


def is_plain(path: str) -> bool:
    """Whether a path is relative, of whole parts, and of no other system: one that could lead nowhere else."""
    parts = path.split("/")
    return not any(part in ("", ".", "..") for part in parts) and not set(path) & set("\\:\0")


def _judged(infos: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by name. Raises BundleDamaged for what an archive of headrace never has."""
    if len(infos) > MAX_MEMBERS:
        raise BundleDamaged(f"it has more than {MAX_MEMBERS} members")
    found: dict[str, zipfile.ZipInfo] = {}
    end = texts = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        name, mode = info.orig_filename, info.external_attr >> 16
        if not is_plain(name):
            raise BundleDamaged(f"the name {name[:200]!r} could lead out of where it is read")
        if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
            raise BundleDamaged(f"{name[:200]!r} is no plain file")
        if name in found:
            raise BundleDamaged(f"{name[:200]!r} is there twice")
        if info.flag_bits & 0x1:
            raise BundleDamaged(f"{name[:200]!r} is encrypted")
        if info.header_offset < end:
            raise BundleDamaged("its members overlap")
        end = info.header_offset + info.compress_size
        stored = info.compress_type == zipfile.ZIP_STORED
        if name.startswith(OBJECTS) and not (stored and info.compress_size == info.file_size):
            raise BundleDamaged(f"{name[:200]!r} is compressed, which objects are not")
        if not stored and info.compress_type != zipfile.ZIP_DEFLATED:
            raise BundleDamaged(f"{name[:200]!r} is compressed in a way that is not known")
        texts += 0 if name.startswith(OBJECTS) else info.file_size
        found[name] = info
    if end > size or texts > MAX_TEXT_BYTES:
        raise BundleDamaged("its members are larger than they may be")
    return found


def _understood(content: bytes) -> tuple[dict[str, Any], dict[str, Member]]:
    """The manifest, and the members it names. Raises BundleDamaged."""
    try:
        manifest = orjson.loads(content)
        if (manifest["format"], manifest["version"]) != (FORMAT, VERSION):
            raise BundleDamaged(f"it is not of form {VERSION} of {FORMAT}: read it with the headrace that wrote it")
        members = [
            Member(str(each["path"]), str(each["sha256"]), int(each["size_bytes"])) for each in manifest["members"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleDamaged("its manifest can not be read") from error
    for each in members:
        if each.path.startswith(OBJECTS) and each.path != f"{OBJECTS}{each.sha256}":
            raise BundleDamaged(f"{each.path[:200]!r} is named by another digest than its own")
    return manifest, {each.path: each for each in members}


def _require(member: Member, size: int, sha256: str) -> None:
    if (size, sha256) != (member.size_bytes, member.sha256):
        raise BundleDamaged(f"{member.path[:200]!r} has other bytes than its manifest says: it was changed")


@contextmanager
def _zip_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BundleDamaged(f"{path[:200]!r} can not be read: {error}") from error
