"""What a program writes, as its run keeps it."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace
from headrace.api.tracking.v1.resources_pb2 import OUTPUT_STREAM_STDERR, OUTPUT_STREAM_STDOUT, OutputChunk
from headrace.tracking.output import MAX_CHUNK_BYTES, MAX_WAITING_BYTES, Queue
from headrace.tracking.sender import MAX_BATCH_OUTPUT_BYTES, Kind, Sender
from headrace.tracking.spool import Spool
from tests.support.eventually import eventually

OUT, ERR = OUTPUT_STREAM_STDOUT, OUTPUT_STREAM_STDERR


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_SPOOL", str(tmp_path))
    return tmp_path


def chunks(folder: Path, run_id: str) -> list[OutputChunk]:
    spool = Spool(folder, run_id)
    found = [OutputChunk.FromString(each.payload) for each in spool.records(0) if each.kind == Kind.OUTPUT]
    spool.close()
    return found


def text(found: Iterable[OutputChunk], stream: int = 0) -> str:
    return b"".join(each.content for each in found if stream in (0, each.stream)).decode()


def test_what_is_printed_is_kept_in_order_and_still_printed(spool: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(err)  # made before the run, as by logging.basicConfig
    log = logging.getLogger("training")
    log.addHandler(handler)
    log.propagate = False
    with redirect_stdout(out), redirect_stderr(err):
        with headrace.start_run("x", offline=True) as run:
            print("one")
            log.warning("two")
            print("three", "\u00fc", "\ud800")
        print("after")
    found = chunks(spool, run.id)
    assert [(each.stream, each.content.decode()) for each in found] == [
        (OUT, "one\n"),
        (ERR, "two\n"),
        (OUT, "three \u00fc \\ud800\n"),
    ]
    assert [each.time_us for each in found] == sorted({each.time_us for each in found})
    assert out.getvalue() == "one\nthree \u00fc \ud800\nafter\n"
    assert "write" not in vars(out)


@pytest.mark.parametrize("by_environment", [False, True])
def test_it_is_left_out_on_demand(spool: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool) -> None:
    monkeypatch.setenv("HEADRACE_CAPTURE_OUTPUT", "0" if by_environment else "1")
    with headrace.start_run("x", offline=True, capture_output=None if by_environment else False) as run:
        print("secret")
    assert chunks(spool, run.id) == []


def test_runs_that_overlap_hear_what_is_written_while_they_last(spool: Path) -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        first = headrace.start_run("x", offline=True)
        print("a")
        second = headrace.start_run("x", offline=True)
        print("b")
        first.finish()
        print("c")
        second.finish()
        third = headrace.start_run("x", offline=True)
        print("d")
        third.finish()
    assert [text(chunks(spool, run.id)) for run in (first, second, third)] == ["a\nb\n", "b\nc\n", "d\n"]
    assert out.getvalue() == "a\nb\nc\nd\n"


def test_a_stream_that_is_not_there_is_left_alone(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with headrace.start_run("x", offline=True) as run:
        sys.stderr.write("still heard\n")
    assert text(chunks(spool, run.id)) == "still heard\n"


def test_it_is_on_disk_before_the_run_ends(spool: Path) -> None:
    with redirect_stdout(io.StringIO()):
        run = headrace.start_run("x", offline=True)
        before = (spool / f"{run.id}.spool").stat().st_size
        print("hello")
        eventually(lambda: (spool / f"{run.id}.spool").stat().st_size > before)
        run.finish()


DESCRIPTORS = """
import os, subprocess, sys
import headrace
run = headrace.start_run("x", offline=True, capture_output="fd")
print("from Python", flush=True)
subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
os.write(2, b"from below\\n")
run.finish()
os.write(1, b"after " + run.id.encode())
"""


def test_descriptors_are_heard_with_children_and_what_is_below_python(spool: Path) -> None:
    done = subprocess.run([sys.executable, "-c", DESCRIPTORS], capture_output=True, text=True, check=True, timeout=60)
    printed, _, run_id = done.stdout.rpartition("after ")
    assert (printed, done.stderr) == ("from Python\nfrom a child\n", "from below\n")
    found = chunks(spool, run_id)
    assert (text(found, OUT), text(found, ERR)) == (printed, done.stderr)


@given(st.lists(st.tuples(st.sampled_from([OUT, ERR]), st.binary(min_size=1, max_size=200_000)), max_size=8))
def test_chunks_say_the_same_and_fit(written: list[tuple[int, bytes]]) -> None:
    queue = Queue()
    for stream, content in written:
        queue.put(OUT if stream == OUT else ERR, content)
    found = list(queue.taken())
    for stream in (OUT, ERR):
        heard = b"".join(each.content for each in found if each.stream == stream)
        assert heard == b"".join(content for which, content in written if which == stream)
    times = [each.time_us for each in found]
    assert times == sorted(set(times))
    assert all(1 <= len(each.content) <= MAX_CHUNK_BYTES and not each.left_out_bytes for each in found)


@pytest.mark.parametrize("more", [True, False])
def test_what_goes_over_the_room_is_counted_on_what_comes_after(more: bool) -> None:
    queue = Queue()
    written = MAX_WAITING_BYTES // 1000 + 5
    for _ in range(written):
        queue.put(OUT, b"x" * 1000)
    kept = list(queue.taken())
    dropped = written * 1000 - sum(len(each.content) for each in kept)
    assert 4000 <= dropped <= 6000
    assert not any(each.left_out_bytes for each in kept)
    if more:
        queue.put(ERR, b"later")
    [after] = queue.taken(ended=True)
    assert (after.left_out_bytes, after.content) == (dropped, b"later" if more else b"\n")
    assert list(queue.taken(ended=True)) == []


def test_output_is_sent_in_calls_of_bounded_size(tmp_path: Path) -> None:
    held = Spool(tmp_path, "00000000-0000-0000-0000-000000000001")
    for _ in range(40):
        held.append(Kind.OUTPUT, b"x" * 60_000)
    held.append(Kind.METRIC_POINT, b"y")
    sender = Sender(held, "projects/p/runs/r", tmp_path, lambda: pytest.fail("nobody is asked"))
    [batch] = sender._batches()
    assert len(batch.records) > 1
    assert batch.end - batch.records[0].start <= MAX_BATCH_OUTPUT_BYTES
    held.close()
