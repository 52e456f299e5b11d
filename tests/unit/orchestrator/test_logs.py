"""What steps write: each byte once, whatever is sent twice."""

from __future__ import annotations

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from headrace.api.orchestrator.v1.service_pb2 import LogChunk
from headrace_orchestrator import logs
from headrace_orchestrator.logs import StepLogs

RUN = "projects/p/pipelineRuns/11111111-1111-4111-8111-111111111111"


def chunk(offset: int, data: bytes) -> LogChunk:
    return LogChunk(token=1, run=RUN, step="s", attempt=1, offset=offset, data=data)


def test_what_is_sent_twice_or_overlaps_is_stored_once_and_a_hole_is_not_filled(tmp_path: Path) -> None:
    stored = StepLogs(tmp_path)
    assert stored.append(chunk(0, b"hello ")) == 6
    assert stored.append(chunk(0, b"hello ")) == 6
    assert stored.append(chunk(3, b"lo world")) == 11
    assert stored.append(chunk(20, b"!")) == 11
    found = stored.read(RUN, "s", attempt=1, offset=0)
    assert (found.text, found.next_offset, found.end) == ("hello world", 11, True)
    assert stored.read(RUN, "s", attempt=1, offset=6).text == "world"
    assert stored.read(RUN, "s", attempt=2, offset=0).text == ""


def test_reading_in_pieces_breaks_no_character(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    monkeypatch.setattr(logs, "MAX_READ_BYTES", 5)
    stored = StepLogs(tmp_path)
    text = "aé€😀" * 20
    stored.append(chunk(0, text.encode()))
    found, offset = "", 0
    while True:
        piece = stored.read(RUN, "s", attempt=1, offset=offset)
        found, offset = found + piece.text, piece.next_offset
        if piece.end:
            break
    assert found == text


def test_what_is_no_text_is_replaced_and_reading_goes_on(tmp_path: Path) -> None:
    stored = StepLogs(tmp_path)
    stored.append(chunk(0, b"\xff\xfe ok \x80"))
    assert "ok" in stored.read(RUN, "s", attempt=1, offset=0).text


@given(st.binary(max_size=40))
@example(b"\xc0\x80\x80\x80")
@example(b"\xf0\x80\x80\x80")
def test_a_cut_never_loses_more_than_an_unfinished_character(data: bytes) -> None:
    cut = logs._whole(data)
    assert data.startswith(cut)
    assert len(data) - len(cut) <= 3


@given(st.text(max_size=10), st.characters(exclude_categories=["Cs"]))
def test_a_cut_is_at_the_beginning_of_the_last_unfinished_character(text: str, last: str) -> None:
    before, encoded = text.encode(), last.encode()
    assert logs._whole(before + encoded) == before + encoded
    for end in range(len(encoded)):
        assert logs._whole(before + encoded[:end]) == before
