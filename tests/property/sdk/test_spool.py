"""The spool: what was written comes back in order, whatever was torn or killed in between."""

import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from headrace.tracking.spool import Progress, Spool, SpoolBusyError, pending_runs

records = st.lists(st.tuples(st.integers(1, 8), st.binary(max_size=60)), max_size=20)


@given(records, st.integers(0, 200))
def test_a_torn_end_loses_the_torn_record_alone(written: list[tuple[int, bytes]], torn: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spool = Spool(folder, "run")
        ends = [0]
        for kind, payload in written:
            spool.append(kind, payload)
            ends.append(spool.size)
        spool.close()
        path = folder / "run.spool"
        size = max(path.stat().st_size - torn, 0)
        with path.open("r+b") as file:
            file.truncate(size)
        again = Spool(folder, "run")
        whole = max(index for index, end in enumerate(ends) if end <= size)
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
            start = [0, *(each.end for each in everything)][min(taken, len(everything))]
            assert list(spool.records(start)) == [each for each in everything if each.start >= start]
            spool.mark(Progress(start, start))
        with closing(Spool(Path(name), "run")) as again:
            assert again.progress == Progress(start, start)


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
