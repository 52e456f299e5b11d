"""Up to when everything was counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from headrace_monitor.watermark import ShardProgress, watermark

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PREDICTIONS, LABELS = 0, 1


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def shard(number: int, time_us: int, *, updated: datetime, kind: int = PREDICTIONS) -> ShardProgress:
    return ShardProgress(kind, number, time_us, updated)


def mark(shards: list[ShardProgress], caught_up: dict[tuple[int, int], datetime]) -> int | None:
    return watermark(shards, caught_up, partitions=2, now=NOW, idle_s=3.0)


def test_the_slowest_shard_counts() -> None:
    read = {(kind, partition): ago(0.1) for kind in (PREDICTIONS, LABELS) for partition in (0, 1)}

    assert mark([shard(0, 500, updated=ago(1)), shard(1, 300, updated=ago(1))], read) == 300
    labels = shard(1, 200, updated=ago(1), kind=LABELS)
    assert mark([shard(0, 500, updated=ago(1)), shard(1, 300, updated=ago(1)), labels], read) == 200


def test_an_idle_shard_is_left_out_only_when_its_partition_was_read_to_the_end() -> None:
    shards = [shard(0, 500, updated=ago(1)), shard(1, 300, updated=ago(60))]

    assert mark(shards, {(PREDICTIONS, 0): ago(0.1), (PREDICTIONS, 1): ago(0.1)}) == 500
    assert mark(shards, {(PREDICTIONS, 0): ago(0.1), (PREDICTIONS, 1): ago(30)}) == 300


def test_nothing_is_known_while_a_partition_without_news_is_unread() -> None:
    shards = [shard(0, 500, updated=ago(1))]

    assert mark(shards, {(PREDICTIONS, 0): ago(0.1)}) is None
    assert mark(shards, {(PREDICTIONS, 0): ago(0.1), (PREDICTIONS, 1): ago(0.1)}) == 500


def test_when_all_are_idle_the_furthest_counts() -> None:
    read = {(PREDICTIONS, 0): ago(0.1), (PREDICTIONS, 1): ago(0.1)}

    assert mark([shard(0, 500, updated=ago(60)), shard(1, 300, updated=ago(60))], read) == 500


def test_there_is_no_watermark_without_predictions() -> None:
    assert mark([shard(0, 500, updated=ago(1), kind=LABELS)], {}) is None
