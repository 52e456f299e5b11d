"""The spool: what was written comes back in order, whatever was torn or killed in between."""

import struct
import tempfile
import zlib
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.tracking.spool import Progress, Spool, SpoolBusyError, SpoolDamagedError, pending_runs

records = st.lists(st.tuples(st.integers(1, 8), st.binary(max_size=60)), max_size=20)


@given(records, st.integers(0, 200))
def test_a_torn_end_loses_the_torn_record_alone(written: list[tuple[int, bytes]], torn: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spool = Spool(folder, "run")
        ends = [spool.size]
        for kind, payload in written:
            spool.append(kind, payload)
            ends.append(spool.size)
        spool.close()
        path = folder / "run.spool"
        size = max(path.stat().st_size - torn, 0)
        with path.open("r+b") as file:
            file.truncate(size)
        again = Spool(folder, "run")
        whole = max((index for index, end in enumerate(ends) if end <= size), default=0)
        assert [(each.kind, each.payload) for each in again.records(0)] == written[:whole]
        again.append(7, b"after")
        assert [(each.kind, each.payload) for each in again.records(0)] == [*written[:whole], (7, b"after")]
        again.close()


@given(records, st.integers(0, 20))
def test_reading_goes_on_where_it_stopped(written: list[tuple[int, bytes]], taken: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        with closing(Spool(Path(name), "run")) as spool:
            for kind, payload in written:
                spool.append(kind, payload)
            everything = list(spool.records(0))
            start = [spool.progress.sent, *(each.end for each in everything)][min(taken, len(everything))]
            assert list(spool.records(start)) == [each for each in everything if each.start >= start]
            spool.mark(Progress(start, start))
        with closing(Spool(Path(name), "run")) as again:
            assert again.progress == Progress(start, start)


@given(records.filter(len), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_is_in_the_last_record(
    written: list[tuple[int, bytes]], place: int, flipped: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        last = 0
        with closing(Spool(folder, "run")) as spool:
            for kind, payload in written:
                last = spool.size
                spool.append(kind, payload)
        path = folder / "run.spool"
        content = bytearray(path.read_bytes())
        place = 12 + place % (len(content) - 12)
        content[place] ^= flipped
        path.write_bytes(content)
        if place < last:
            with pytest.raises(SpoolDamagedError, match=r"run\.spool is damaged: the .*record at byte \d+ was changed"):
                Spool(folder, "run")
            assert path.read_bytes() == content
        else:
            with suppress(SpoolDamagedError), closing(Spool(folder, "run")) as again:
                assert [(each.kind, each.payload) for each in again.records(0)] == written[:-1]


def test_a_spool_of_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    content = b"headrace" + (2).to_bytes(4, "little") + b"what nobody knows"
    (tmp_path / "run.spool").write_bytes(content)
    with pytest.raises(SpoolDamagedError, match="format 2, this headrace reads up to 1: update headrace"):
        Spool(tmp_path, "run")
    assert (tmp_path / "run.spool").read_bytes() == content


def test_a_spool_of_before_there_were_formats_is_read_and_written_on(tmp_path: Path) -> None:
    old = struct.pack("<IIB", 3, zlib.crc32(b"one"), 4) + b"one"
    (tmp_path / "run.spool").write_bytes(old + old[:5])
    with closing(Spool(tmp_path, "run")) as spool:
        spool.append(5, b"two")
        assert [(each.start, each.kind, each.payload) for each in spool.records(0)] == [(0, 4, b"one"), (12, 5, b"two")]
    with closing(Spool(tmp_path, "run")) as spool:
        assert not spool.is_sent
        assert [each.payload for each in spool.records(0)] == [b"one", b"two"]


def test_a_spool_has_one_holder(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run")
    try:
        Spool(tmp_path, "run")
    except SpoolBusyError:
        refused = True
    else:
        refused = False
    assert refused
    assert pending_runs(tmp_path) == ["run"]
    spool.remove()
    assert pending_runs(tmp_path) == []
