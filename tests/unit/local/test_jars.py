from __future__ import annotations

import hashlib
import threading
import tomllib
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headrace_local.errors import JarDigest, JarUnavailable
from headrace_local.jars import Jar, digest_of, ensure, lock_file, read_lock

CONTENT = {"alpha": b"alpha's bytes", "beta": b"beta's bytes"}
JARS = tuple(Jar("org.example", name, "1.0", hashlib.sha256(data).hexdigest()) for name, data in CONTENT.items())


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def repository(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Serve a Maven repository of :data:`CONTENT` and make it jgo's only one, as a user's mirror would be."""
    for name, data in CONTENT.items():
        path = folder / "repository" / "org" / "example" / name / "1.0" / f"{name}-1.0.jar"
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder / "repository"))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        _use(f"http://127.0.0.1:{server.server_address[1]}", folder, monkeypatch)
        try:
            yield folder / "repository"
        finally:
            server.shutdown()
            thread.join()


def _use(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "jgo.conf").write_text(f"[repositories]\ncentral = {url}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(folder / "jgo.conf"))


def test_the_lock_names_what_the_declaration_asks_for_and_no_host() -> None:
    text = lock_file().read_text()
    declared = tomllib.loads((Path(__file__).parents[3] / "jgo.toml").read_text())["dependencies"]["coordinates"]

    locked = {f"{jar.group}:{jar.artifact}:{jar.version}" for jar in read_lock(lock_file())}

    assert set(declared) <= locked
    assert "http" not in text
    assert "://" not in text


def test_the_class_path_order_is_fixed() -> None:
    names = [jar.filename for jar in read_lock(lock_file())]

    assert names == sorted(names)
    assert len(names) == len(set(names))


def test_the_sets_digest_speaks_of_content_and_not_of_the_time_it_was_locked(tmp_path: Path) -> None:
    later = tmp_path / "later.toml"
    lines = lock_file().read_text().splitlines()
    later.write_text("\n".join('generated = "2030-01-01"' if "generated" in line else line for line in lines))
    other = tmp_path / "other.toml"
    other.write_text(lock_file().read_text().replace("4.4.0", "4.4.1"))

    assert digest_of(read_lock(later)) == digest_of(read_lock(lock_file()))
    assert digest_of(read_lock(other)) != digest_of(read_lock(lock_file()))


def test_absent_jars_are_fetched_once_and_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    with repository(tmp_path, monkeypatch):
        paths = ensure(JARS, cache=tmp_path / "cache", progress=lambda done, total: seen.append((done, total)))

    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert seen == [(1, 2), (2, 2)]
    assert ensure(JARS, cache=tmp_path / "cache") == paths  # the repository is gone
    assert sorted(item.name for item in (tmp_path / "cache").iterdir()) == ["jars"]


def test_no_network_is_told_with_the_jar_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _use("http://127.0.0.1:9", tmp_path, monkeypatch)

    with pytest.raises(JarUnavailable, match=r"org\.example:alpha:1\.0 .*connect this machine to the network"):
        ensure(JARS, cache=tmp_path / "cache")


def test_a_repository_without_the_jar_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Jar("org.example", "gamma", "1.0", "0" * 64)
    with repository(tmp_path, monkeypatch), pytest.raises(JarUnavailable, match="gamma"):
        ensure([*JARS, absent], cache=tmp_path / "cache")


def test_a_repository_that_serves_other_bytes_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with repository(tmp_path, monkeypatch) as served:
        (served / "org/example/beta/1.0/beta-1.0.jar").write_bytes(b"evil")
        with pytest.raises(JarDigest, match=r"is not the locked org\.example:beta:1\.0"):
            ensure(JARS, cache=tmp_path / "cache")

    assert not (tmp_path / "cache" / "jars" / "beta-1.0.jar").exists()


def test_a_cached_jar_that_was_changed_is_found_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with repository(tmp_path, monkeypatch):
        paths = ensure(JARS, cache=tmp_path / "cache")
    paths[0].write_bytes(b"changed")

    with pytest.raises(JarDigest, match=r"alpha-1\.0\.jar .*delete the file to fetch it again"):
        ensure(JARS, cache=tmp_path / "cache")
