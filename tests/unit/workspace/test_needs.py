"""What a test needs of the machine is asked before it runs, and never forgotten silently."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = ["-p", "tests.support.needs", "-p", "no:cacheprovider"]
TWO_TESTS = """
    import pytest

    @pytest.mark.browser
    def test_in_a_browser(): pass

    def test_anywhere(): pass
"""


@pytest.fixture
def nested(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.Pytester:
    """A test folder of its own on a machine without a browser, off CI."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CI", "HEADRACE_CHROMIUM", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeini(
        "[pytest]\nmarkers =\n    browser: needs a browser\nasyncio_default_fixture_loop_scope = function\n"
    )
    return pytester


def test_a_test_whose_need_is_missing_is_deselected_and_named(nested: pytest.Pytester) -> None:
    nested.makepyfile(TWO_TESTS)
    result = nested.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["*NOT RUN*", "1 marked browser: install Chromium*"])


def test_worker_processes_report_what_they_deselected(nested: pytest.Pytester) -> None:
    nested.makepyfile(TWO_TESTS)
    result = nested.runpytest_subprocess(*PLUGIN, "-n", "2")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*NOT RUN*", "1 marked browser: install Chromium*"])


def test_ci_fails_a_test_instead_of_deselecting_it(nested: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    nested.makepyfile(TWO_TESTS)
    result = nested.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*needs 'browser' and CI deselects nothing*"])


def test_tests_on_shared_servers_stay_in_one_process(nested: pytest.Pytester) -> None:
    folder = nested.mkdir("e2e")
    (folder / "test_many.py").write_text(
        "import os, pytest\n"
        "@pytest.mark.parametrize('n', range(12))\n"
        "def test_one(n):\n"
        "    with open('workers', 'a') as file: print(os.environ['PYTEST_XDIST_WORKER'], file=file)\n"
    )
    nested.runpytest_subprocess(*PLUGIN, "-n", "2").assert_outcomes(passed=12)
    workers = (nested.path / "workers").read_text().split()
    assert len(workers) == 12
    assert len(set(workers)) == 1
