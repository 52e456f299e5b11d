"""Gives up on what waited too long for its counterpart: predictions without their label, labels without prediction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from headrace_kit.postgres import Database

CHUNK: Final = 2000
"""Rows of a table given up in one transaction: counting waits for it."""

# A key is all that is known of a prediction's id: of a UUID it tells the shard, of others some shard. Totals are sums.
_PREDICTIONS = """
WITH old AS (
    SELECT endpoint_id, key FROM waiting_predictions WHERE counted_at < clock_timestamp() - $1::interval LIMIT $2
), gone AS (
    DELETE FROM waiting_predictions w USING old WHERE w.endpoint_id = old.endpoint_id AND w.key = old.key
    RETURNING w.endpoint_id, (get_byte(w.key, 15) % 24)::smallint AS shard,
        length(w.predicted) / 8 - coalesce(bit_count(w.labelled), 0) AS unlabelled
), counted AS (
    INSERT INTO endpoint_counts AS c (endpoint_id, shard, predictions_unlabelled)
    SELECT endpoint_id, shard, sum(unlabelled) FROM gone GROUP BY endpoint_id, shard
    ON CONFLICT (endpoint_id, shard) DO UPDATE SET
        predictions_unlabelled = c.predictions_unlabelled + excluded.predictions_unlabelled
)
SELECT count(*) AS gone, coalesce(sum(unlabelled), 0)::bigint AS given_up FROM gone
"""
_LABELS = """
WITH old AS (
    SELECT endpoint_id, key, row_number FROM waiting_labels
    WHERE counted_at < clock_timestamp() - $1::interval LIMIT $2
), gone AS (
    DELETE FROM waiting_labels w USING old
    WHERE w.endpoint_id = old.endpoint_id AND w.key = old.key AND w.row_number = old.row_number
    RETURNING w.endpoint_id, w.shard
), counted AS (
    INSERT INTO endpoint_counts AS c (endpoint_id, shard, labels_waiting, labels_unmatched)
    SELECT endpoint_id, shard, -count(*), count(*) FROM gone GROUP BY endpoint_id, shard
    ON CONFLICT (endpoint_id, shard) DO UPDATE SET
        labels_waiting = c.labels_waiting + excluded.labels_waiting,
        labels_unmatched = c.labels_unmatched + excluded.labels_unmatched
)
SELECT count(*) AS gone, count(*) AS given_up FROM gone
"""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What a chunk gave up.

    Attributes:
        predictions: Prediction rows that never got their label.
        labels: Labels that never met their prediction.
        more: Whether more may be left that is as old.
    """

    predictions: int
    labels: int
    more: bool


class Retention:
    """Deletes what has waited, and counts it in the statement that deletes it.

    Predictions that got all their labels go likewise, uncounted: they wait for repeats. Whoever counts must not count
    meanwhile, so that no label meets a prediction that is being given up; see ``streams.Shell``.

    Args:
        database: The monitor's.
        wait: How long a counterpart is waited for, by the database's clock.
        chunk: Rows of a table given up at once.
    """

    def __init__(self, database: Database, *, wait: timedelta, chunk: int = CHUNK) -> None:
        self._database = database
        self._wait = wait
        self._chunk = chunk

    async def step(self) -> GivenUp:
        """Gives up one chunk of predictions and one of labels."""
        predictions = await self._database.fetchrow(_PREDICTIONS, self._wait, self._chunk)
        labels = await self._database.fetchrow(_LABELS, self._wait, self._chunk)
        if predictions is None or labels is None:
            raise AssertionError("an aggregate without groups gives one row")
        return GivenUp(
            predictions=predictions["given_up"],
            labels=labels["given_up"],
            more=self._chunk in (predictions["gone"], labels["gone"]),
        )
