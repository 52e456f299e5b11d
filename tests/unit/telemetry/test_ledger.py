"""The ledger outlives its process: ids stay, epochs grow, unfinished batches are known."""

from pathlib import Path

import pytest

from headrace.kafka.errors import TelemetryError
from headrace.kafka.ledger import Kind, Ledger, Tail


def test_numbers_are_dense_per_kind_and_shard() -> None:
    ledger = Ledger()

    assert [ledger.hand_out(Kind.LABELS, 3) for _ in range(3)] == [1, 2, 3]
    assert ledger.hand_out(Kind.PREDICTIONS, 3) == 1
    assert ledger.hand_out(Kind.LABELS, 4) == 1


def test_a_new_process_keeps_the_id_and_raises_the_epoch(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "ledger")
    first.close()

    second = Ledger(tmp_path / "ledger")

    assert second.producer_id == first.producer_id
    assert second.epoch > first.epoch
    second.close()


def test_what_was_handed_out_and_not_acknowledged_is_known_afterwards(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "ledger")
    for _ in range(3):
        first.hand_out(Kind.PREDICTIONS, 7)
    first.acknowledge(Kind.PREDICTIONS, 7, 2)
    first.acknowledge(Kind.LABELS, 1, first.hand_out(Kind.LABELS, 1))
    epoch = first.epoch
    first.close()

    second = Ledger(tmp_path / "ledger")

    assert second.tail(Kind.PREDICTIONS, 7) == Tail(epoch, 3)
    assert second.tail(Kind.LABELS, 1) is None
    second.finish_tail(Kind.PREDICTIONS, 7)
    second.close()
    third = Ledger(tmp_path / "ledger")
    assert third.tail(Kind.PREDICTIONS, 7) is None
    third.close()


def test_two_processes_do_not_share_a_ledger(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "ledger")

    with pytest.raises(TelemetryError, match="in use"):
        Ledger(tmp_path / "ledger")

    first.close()


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("something else")

    with pytest.raises(TelemetryError, match="no ledger"):
        Ledger(tmp_path / "ledger")
