"""Names and texts: whatever comes, it is taken whole or refused by name."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace_kit.errors import InvalidArgument
from headrace_kit.names import EXPERIMENT, MODEL, RUN, VERSION, NamePattern, parse_name, require_text

IDS = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?", fullmatch=True)
BIDI = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}


def refusal_of(call: Callable[[], object]) -> InvalidArgument | None:
    try:
        call()
    except InvalidArgument as error:
        return error
    return None


@given(project=IDS, model=IDS, version=st.integers(1, 10**9).map(str))
def test_a_name_made_of_ids_gives_them_back(project: str, model: str, version: str) -> None:
    name = VERSION.format(project=project, model=model, version=version)
    ids = {"project": project, "model": model, "version": version}
    assert VERSION.parse(name, field="name") == parse_name(VERSION.pattern, name) == ids


@given(st.text(max_size=600) | st.lists(IDS | st.text(max_size=10), max_size=7).map("/".join))
@example("projects/p/models/\n")
@example("projects/p/models/m\n")
@example("projects/p/models/'; DROP TABLE events --")
@example("projects/p/models/..")
@example("projects/../models/m")
@example("projects/p/models/ａ")
def test_what_is_taken_has_exactly_the_form(name: str) -> None:
    refusal = refusal_of(lambda: MODEL.parse(name, field="path.of.field"))
    if refusal is not None:
        assert refusal.field == "path.of.field"
        return
    ids = MODEL.parse(name, field="path.of.field")
    assert MODEL.format(**ids) == name
    assert all(each.isascii() and each.strip("._-") for each in ids.values())


@pytest.mark.parametrize(("pattern", "most"), [(RUN, 100), (MODEL, 250)])
def test_an_id_has_a_limit(pattern: NamePattern, most: int) -> None:
    kind = pattern.pattern.rpartition("{")[2].rstrip("}")
    for length in (1, most):
        ids = {"project": "p", kind: "x" * length}
        assert pattern.parse(pattern.format(**ids), field="name") == ids
    with pytest.raises(InvalidArgument):
        pattern.parse(pattern.format(**{"project": "p", kind: "x" * (most + 1)}), field="name")


@pytest.mark.parametrize("name", ["Delay of Flights", "a..b", "A-1_b.C"])
def test_a_model_may_have_capitals_and_spaces(name: str) -> None:
    assert MODEL.parse(f"projects/p/models/{name}", field="name")["model"] == name


@pytest.mark.parametrize("name", [" a", "a ", ".", "..", "a:b", "a@b", "a\u00a0b", "Größe"])
def test_a_model_has_no_other_character_in_its_name(name: str) -> None:
    with pytest.raises(InvalidArgument):
        MODEL.parse(f"projects/p/models/{name}", field="name")


@pytest.mark.parametrize("name", ["Größe & Maß", "実験 1", "a" * 250, "🛩️ delays"])
def test_an_experiment_may_be_called_anything_that_can_be_read(name: str) -> None:
    assert EXPERIMENT.parse(f"projects/p/experiments/{name}", field="name")["experiment"] == name


@pytest.mark.parametrize("name", ["", " a", "a ", "a" * 251, "a/b", "a\tb", "a\0b", "..", "x\u202ey", "\ufeffx"])
def test_an_experiment_may_not_be_called_what_can_not_be_read(name: str) -> None:
    with pytest.raises(InvalidArgument):
        EXPERIMENT.parse(f"projects/p/experiments/{name}", field="name")


@given(text=st.text(max_size=30), least=st.integers(0, 5), most=st.integers(5, 25), lines=st.booleans())
@example(text="a\r\nb", least=0, most=25, lines=False)
@example(text="a\x85b", least=0, most=25, lines=True)
def test_a_text_is_taken_when_it_is_short_enough_and_all_of_it_shows(
    text: str, least: int, most: int, lines: bool
) -> None:
    hidden = [
        each
        for each in text
        if unicodedata.category(each) in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(each) in BIDI
        if not (lines and each in "\t\r\n")
    ]
    fine = least <= len(text) <= most and not hidden and "\ufeff" not in text
    refusal = refusal_of(lambda: require_text(text, field="f", least=least, most=most, lines=lines))
    assert (refusal is None) == fine
    assert refusal is None or refusal.field == "f"


def test_a_pattern_takes_no_other_kind_of_name() -> None:
    with pytest.raises(InvalidArgument, match="projects/\\{project\\}/models/\\{model\\}"):
        MODEL.parse("projects/p/runs/r", field="name")
    with pytest.raises(InvalidArgument):
        NamePattern("projects/{project}").parse("projects/p/", field="name")
