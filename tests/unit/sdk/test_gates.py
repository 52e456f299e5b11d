"""Gates as a shell carries them, and as people read them."""

from __future__ import annotations

import pytest

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.errors import InvalidArgument
from headrace.gates import sentences
from headrace.gatewords import (
    contest,
    persons,
    replay,
    seconds,
    threshold,
    written_age,
    written_contest,
    written_persons,
    written_replay,
    written_threshold,
)


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("rmse<=25", resources.MetricGate(metric="rmse", comparison=resources.COMPARISON_AT_MOST, threshold=25)),
        ("f1 > 0.5", resources.MetricGate(metric="f1", comparison=resources.COMPARISON_GREATER, threshold=0.5)),
        (
            "holdout/rmse>=-1e3",
            resources.MetricGate(
                metric="rmse", comparison=resources.COMPARISON_AT_LEAST, threshold=-1000, check="holdout"
            ),
        ),
    ],
)
def test_a_threshold_is_read(text: str, gate: resources.MetricGate) -> None:
    assert threshold(text) == gate


def test_a_contest_is_read() -> None:
    assert contest("rmse<") == resources.ChampionGate(metric="rmse")
    wanted = resources.ChampionGate(metric="auc", higher_is_better=True, margin=0.01, check="holdout")
    assert contest("holdout/auc>0.01") == wanted


def test_ages_and_persons_are_read() -> None:
    assert [seconds(each, "--max-age") for each in ("", "90s", "15m", "12h", "30d")] == [0, 90, 900, 43200, 2592000]
    assert persons("2") == resources.ApprovalGate(count=2)
    assert persons("1:reviewer") == resources.ApprovalGate(count=1, role="reviewer")


@pytest.mark.parametrize("text", ["", "rmse", "<=1", "rmse<=", "rmse<=x", "rmse==3"])
def test_what_is_no_threshold_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--metric"):
        threshold(text, "--metric")


def test_other_nonsense_is_refused() -> None:
    for read in (lambda: contest("rmse"), lambda: seconds("soon", "--max-age"), lambda: persons("two")):
        with pytest.raises(InvalidArgument):
            read()


def test_gates_are_told_in_phrases() -> None:
    gates = resources.Gates(
        alias="production",
        required_checks=["quality"],
        metrics=[threshold("rmse<=25")],
        champion=[contest("holdout/auc>0.01"), contest("mae<")],
        max_age_s=86400 * 30,
        max_run_age_s=90,
        safe_format_required=True,
        compatible_signature_required=True,
        approvals=[persons("1:reviewer")],
        approval_required=True,
    )

    assert list(sentences(gates)) == [
        "check quality passed",
        "rmse <= 25",
        "more holdout/auc than the champion by 0.01, on the same data",
        "less mae than the champion, on the same data",
        "a version of at most 30 days",
        "a run of at most 1.5 minutes",
        "a safe format, or consent to it",
        "a compatible signature",
        "approved by 1 person with the role reviewer",
        "approval",
    ]
    assert list(sentences(resources.Gates(alias="a"))) == ["no approval"]


@pytest.mark.parametrize("text", ["rmse<=25", "holdout/rmse>-0.001", "f1>=1e+22", "a b/c d<0.1"])
def test_a_threshold_is_written_as_it_is_read(text: str) -> None:
    assert written_threshold(threshold(text)) == text


def test_other_gates_are_written_as_they_are_read() -> None:
    assert [written_contest(contest(each)) for each in ("rmse<", "h/auc>0.01")] == ["rmse<", "h/auc>0.01"]
    assert [written_age(seconds(each)) for each in ("", "90s", "15m", "12h", "30d")] == ["", "90s", "15m", "12h", "30d"]
    assert [written_persons(persons(each)) for each in ("2", "1:reviewer")] == ["2", "1:reviewer"]


def test_a_replay_is_asked_for_in_words() -> None:
    assert replay("1000") == resources.ReplayGate(requests=1000)
    gate = replay("1000:max_difference<=0.5")
    assert gate == resources.ReplayGate(requests=1000, measure=resources.REPLAY_MEASURE_MAX_DIFFERENCE, most=0.5)
    gate.max_age_s = 86400
    gates = resources.Gates(alias="production", replay=gate, signed_package_required=True)
    assert list(sentences(gates))[:2] == [
        "the last 1000 requests answered again without errors, max_difference <= 0.5, at most 1 days ago",
        "a package signed by a trusted key",
    ]
    for text in ("", "many", "1000:rmse<=1", "1000:max_difference>1", "1000:max_difference<=x"):
        with pytest.raises(InvalidArgument, match="--replayed"):
            replay(text, "--replayed")
    for text in ("1000", "1000@7d", "1000:max_difference<=0.5", "1000:max_difference<=0.5@12h"):
        assert written_replay(replay(text)) == text
    assert written_replay(resources.ReplayGate()) == ""
