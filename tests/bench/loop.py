"""The closed loop: alert to new version serving, rollback; on the example of the flights."""

from __future__ import annotations

import os
from collections.abc import Iterator

from flights import data, demo
from tests.bench.figures import Figure
from tests.support.platform import Platform


def measure(platform: Platform, *, quick: bool) -> Iterator[Figure]:
    """Plays the example; it leaves the endpoint ``delays`` behind, which the other measurements use."""
    os.environ["HEADRACE_DATA"] = str(platform.folder)
    until = data.microseconds(2013, 6 if quick else 11)
    report = demo.play(platform.connection, pace=5000, until_us=until, hasty_from_us=data.microseconds(2013, 5))
    rate = report.flights / report.seconds
    yield Figure("flights replayed through serving, Kafka and monitor", f"{rate:,.0f}/s", "", "the pace of 5,000/s")
    yield Figure(
        "predictions sent = counted",
        f"{report.predictions_sent:,} = {report.predictions_counted:,}",
        "equal",
        "nothing: it holds or not",
    )
    for retrain in report.retrains:
        if retrain.alert_to_serving_s is not None:
            yield Figure(
                "alert to new version serving", f"{retrain.alert_to_serving_s:.1f} s", "", "training and its imports"
            )
            break
    for rollback in report.rollbacks:
        if rollback.request_to_serving_s is not None:
            yield Figure(
                "`RollbackRequested` to old version serving",
                f"{rollback.request_to_serving_s * 1000:.0f} ms",
                "500 ms",
                "sequencer, Kafka and one commit, beside the load of the replay",
            )
            break
