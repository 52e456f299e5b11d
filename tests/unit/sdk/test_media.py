"""Pictures, sounds and tables as browsers show them, read back by other libraries."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

import headrace
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.tracking.media import at_step, audio_bytes, figure_bytes, image_bytes, media_type_of, table_bytes
from headrace.tracking.sender import Kind
from headrace.tracking.spool import blob_path
from tests.unit.sdk.test_recording import recorded


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.randoms(use_true_random=False))
def test_an_array_is_a_png_of_the_same_pixels(height: int, width: int, channels: int, chance: object) -> None:
    shape = (height, width, channels) if channels else (height, width)
    pixels = np.random.default_rng(getattr(chance, "getrandbits")(32)).integers(0, 256, shape, np.uint8)  # noqa: B009
    with Image.open(io.BytesIO(image_bytes(pixels, "a.png"))) as found:
        assert found.size == (width, height)
        assert found.mode == {0: "L", 1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        assert np.array_equal(np.asarray(found), pixels[:, :, 0] if channels == 1 else pixels)


def test_reals_and_truth_values_are_shades() -> None:
    for array in (np.array([[0.0, 0.5, 1.0]]), np.array([[False, True]])):
        with Image.open(io.BytesIO(image_bytes(array, "a.png"))) as found:
            assert np.asarray(found).tolist() == [np.rint(array.astype(float) * 255).astype(int).ravel().tolist()]


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros(3), "an image is"),
        (np.zeros((2, 2, 5)), "an image is"),
        (np.zeros((0, 2)), "an image is"),
        (np.array([[256]]), "values lie from 0 to 255"),
        (np.array([[-0.1]]), "values lie from 0 to 1"),
        (np.array([[np.nan]]), "values lie from 0 to 1"),
        (np.array([["x"]]), "give numbers"),
    ],
)
def test_what_is_no_picture_is_refused(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        image_bytes(array, "a.png")


def test_a_picture_of_pillow_takes_the_form_of_its_path() -> None:
    for path, form in (("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.webp", "WEBP"), ("a", "PNG")):
        with Image.open(io.BytesIO(image_bytes(Image.new("RGB", (4, 3)), path))) as found:
            assert (found.format, found.size) == (form, (4, 3))
    with pytest.raises(ValueError, match=r"stored as \.png"):
        image_bytes(np.zeros((2, 2)), "a.jpg")


def test_samples_are_a_wav_of_the_same_sound() -> None:
    for samples in (np.array([0.0, 1.0, -1.0, 0.5]), np.array([[1, -2], [3, -4]], np.int16)):
        with wave.open(io.BytesIO(audio_bytes(samples, 8000, "a.wav"))) as found:
            channels = 1 if samples.ndim == 1 else 2
            assert (found.getnchannels(), found.getframerate(), found.getsampwidth()) == (channels, 8000, 2)
            read = np.frombuffer(found.readframes(found.getnframes()), "<i2").reshape(samples.shape)
        wanted = samples if samples.dtype == np.int16 else np.rint(samples * 32767)
        assert np.array_equal(read, wanted)


@pytest.mark.parametrize(
    ("samples", "rate", "path", "says"),
    [
        ([0.0], None, "a.wav", "sample_rate"),
        ([0.0], 0, "a.wav", "sample_rate"),
        ([0.0], 8000, "a.mp3", r"stored as \.wav"),
        ([[[0.0]]], 8000, "a.wav", "channels"),
        ([1.5], 8000, "a.wav", "values lie from -1 to 1"),
    ],
)
def test_what_is_no_sound_is_refused(samples: list[float], rate: int | None, path: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        audio_bytes(samples, rate, path)


def test_tables_of_any_kind_are_the_same_csv() -> None:
    columns = {"name": ["a,b", 'c"d'], "count": [1, 2]}
    wanted = b'name,count\n"a,b",1\n"c""d",2\n'
    for table in (columns, pd.DataFrame(columns), pl.DataFrame(columns)):
        assert table_bytes(table, "t.csv") == wanted
    assert table_bytes({"a": ["x\ty"]}, "t.tsv") == b'a\n"x\ty"\n'
    with pytest.raises(ValueError, match="differ in length"):
        table_bytes({"a": [1], "b": []}, "t.csv")
    with pytest.raises(ValueError, match=r"stored as \.csv"):
        table_bytes(columns, "t.xlsx")


def test_figures_of_matplotlib_and_plotly_are_stored_as_their_path_says() -> None:
    figure = Figure()
    figure.subplots().plot([1, 2])
    assert figure_bytes(figure, "a.svg").startswith(b"<?xml")
    assert figure_bytes(figure, "a").startswith(b"\x89PNG")
    go = pytest.importorskip("plotly.graph_objects")
    plot = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))
    page = figure_bytes(plot, "a.html").decode()
    assert "Plotly.newPlot" in page
    assert "<script src=" not in page
    assert figure_bytes(plot, "a.json").startswith(b'{"data"')
    with pytest.raises(ValueError, match="plotly"):
        figure_bytes(plot, "a.png")
    with pytest.raises(TypeError, match="no figure"):
        figure_bytes("text", "a.png")


def test_what_is_logged_is_kept_with_its_media_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_SPOOL", str(tmp_path))
    with headrace.start_run("x", offline=True) as run:
        run.log_image(np.zeros((2, 2)), "seen/sample.png", step=3)
        run.log_audio(np.zeros(4), "heard.wav", sample_rate=8000)
        run.log_audio(b"ID3", "heard.mp3")
        run.log_text("h\u00e9", "notes.md")
        run.log_text("x", "train.log")
        run.log_table({"a": [1]}, "t.csv")
        run.log_figure(b"<svg/>", "a.svg")
    found = [
        service.LogArtifactRequest.FromString(each.payload).artifact
        for each in recorded(tmp_path, run, Kind.LOG_ARTIFACT)
    ]
    kinds = {each.path: each.object.media_type for each in found if not each.path.startswith("code/")}
    assert kinds == {
        "seen/sample/000000000003.png": "image/png",
        "heard.wav": "audio/wav",
        "heard.mp3": "audio/mpeg",
        "notes.md": "text/markdown",
        "train.log": "text/plain",
        "t.csv": "text/csv",
        "a.svg": "image/svg+xml",
    }
    figures = {each.path for each in found if each.kind == resources.ARTIFACT_KIND_FIGURE}
    assert figures == {"seen/sample/000000000003.png", "a.svg"}
    notes = next(each for each in found if each.path == "notes.md")
    assert blob_path(tmp_path, run.id, notes.object.sha256).read_text() == "h\u00e9"


def test_paths_sort_by_step_and_say_what_they_hold() -> None:
    assert min(at_step("a/b.png", step) for step in (100, 20, 3)) == "a/b/000000000003.png"
    assert at_step("a/b.png", None) == "a/b.png"
    assert [media_type_of(each) for each in ("x.PNG", "x.flac", "x")] == [
        "image/png",
        "audio/flac",
        "application/octet-stream",
    ]
