"""Pictures, sounds, figures and tables as bytes that browsers show. Nothing here needs more than NumPy."""

from __future__ import annotations

import csv
import io
import struct
import wave
import zlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

MEDIA_TYPES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".svg": "image/svg+xml",
    ".pdf": "application/pdf",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".flac": "audio/flac",
    ".html": "text/html",
    ".json": "application/json",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".md": "text/markdown",
}
"""Media types by how paths end."""
_CHANNELS: Final = {1: 0, 2: 4, 3: 2, 4: 6}
"""Colour types of PNG by number of channels: grey, grey with alpha, RGB, RGB with alpha."""


@runtime_checkable
class Figure(Protocol):
    """A picture that can save itself, as those of matplotlib do."""

    def savefig(self, file: io.BytesIO, /, *, format: str) -> None:
        """Writes the picture."""


@runtime_checkable
class Plot(Protocol):
    """A picture that a browser draws, as those of plotly."""

    def to_html(self, *, include_plotlyjs: bool, full_html: bool) -> str:
        """A page that needs nothing besides."""
        ...

    def to_json(self) -> str | None:
        """The picture as data."""
        ...


@runtime_checkable
class Image(Protocol):
    """A picture that can save itself, as those of Pillow do."""

    def save(self, file: io.BytesIO, /, *, format: str) -> None:
        """Writes the picture."""


def media_type_of(path: str) -> str:
    """What a path's end says that it holds."""
    return MEDIA_TYPES.get(PurePosixPath(path).suffix.lower(), "application/octet-stream")


def at_step(path: str, step: int | None) -> str:
    """``samples/000000000010.png`` of ``samples.png`` at step 10, so that paths sort by step."""
    if step is None:
        return path
    whole = PurePosixPath(path)
    return str(whole.with_suffix("") / f"{step:012d}{whole.suffix}")


def figure_bytes(figure: object, path: str) -> bytes:
    """A figure in the form that the path's end asks for. Raises TypeError and ValueError."""
    suffix = PurePosixPath(path).suffix.lower()
    if isinstance(figure, bytes):
        return figure
    if isinstance(figure, Plot):
        if suffix == ".json":
            return (figure.to_json() or "").encode()
        if suffix in ("", ".html"):
            return figure.to_html(include_plotlyjs=True, full_html=True).encode()
        raise ValueError(f"a figure of plotly is stored as .html or .json, not as {suffix}")
    if isinstance(figure, Figure):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix.lstrip(".") or "png")
        return buffer.getvalue()
    raise TypeError(f"{type(figure).__name__} is no figure of matplotlib or plotly, and no bytes")


def image_bytes(image: Image | ArrayLike | bytes, path: str) -> bytes:
    """A picture: bytes as they are, one of Pillow in the form of the path's end, an array as PNG.

    Args:
        image: An array is ``(height, width)`` or ``(height, width, 1 to 4)``, of integers 0 to 255 or reals 0 to 1.
        path: Where it is kept.

    Raises:
        ValueError: An array has another shape or other values, or the path does not end in ``.png``.
    """
    if isinstance(image, bytes):
        return image
    suffix = PurePosixPath(path).suffix.lower().lstrip(".")
    if isinstance(image, Image):
        buffer = io.BytesIO()
        image.save(buffer, format={"jpg": "jpeg"}.get(suffix, suffix or "png"))
        return buffer.getvalue()
    if suffix != "png":
        raise ValueError(f"an array is stored as .png, not as {path!r}")
    return _png(_pixels(np.asarray(image)))


def audio_bytes(audio: ArrayLike | bytes, sample_rate: int | None, path: str) -> bytes:
    """A sound: bytes as they are, samples as WAV of 16 bits.

    Args:
        audio: Samples are ``(n,)`` or ``(n, channels)``, of reals -1 to 1 or of int16.
        sample_rate: Samples a second; needed for samples.
        path: Where it is kept.

    Raises:
        ValueError: Samples have another shape or other values, the rate is missing, or the path does not end in
            ``.wav``.
    """
    if isinstance(audio, bytes):
        return audio
    if not path.lower().endswith(".wav"):
        raise ValueError(f"samples are stored as .wav, not as {path!r}")
    if sample_rate is None or not 1 <= sample_rate <= 768_000:
        raise ValueError(f"sample_rate: give 1 to 768000 samples a second, not {sample_rate}")
    samples = np.asarray(audio)
    samples = samples[:, None] if samples.ndim == 1 else samples
    if samples.ndim != 2 or not 1 <= samples.shape[1] <= 32:
        raise ValueError(f"samples are (n,) or (n, channels), not {np.shape(audio)}")
    if samples.dtype != np.int16:
        samples = np.rint(_within(samples, -1.0, 1.0) * 32767)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.ascontiguousarray(samples, "<i2").tobytes())
    return buffer.getvalue()


def table_bytes(table: Any, path: str) -> bytes:  # noqa: ANN401 - data frames have no common type
    """A table as ``.csv`` or ``.tsv``: columns by name, or a data frame of pandas or polars.

    Raises:
        ValueError: Columns differ in length, or the path ends otherwise.
    """
    separators = {".csv": ",", ".tsv": "\t"}
    suffix = PurePosixPath(path).suffix.lower()
    if suffix not in separators:
        raise ValueError(f"a table is stored as .csv or .tsv, not as {path!r}")
    names, rows = _columns(table)
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separators[suffix], lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue().encode()


def _columns(table: Any) -> tuple[list[str], Any]:  # noqa: ANN401 - as above
    if isinstance(table, Mapping):
        columns: Mapping[object, Sequence[object]] = table
        lengths = {str(name): len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns differ in length: {lengths}")
        return list(lengths), zip(*columns.values(), strict=True)
    names = [str(each) for each in table.columns]
    return names, table.itertuples(index=False) if hasattr(table, "itertuples") else table.rows()


def _pixels(array: NDArray[Any]) -> NDArray[np.uint8]:
    """``(height, width, channels)`` of bytes."""
    shown = array[:, :, None] if array.ndim == 2 else array
    if shown.ndim != 3 or shown.shape[2] not in _CHANNELS or 0 in shown.shape:
        raise ValueError(f"an image is (height, width) or (height, width, 1 to 4), not {array.shape}")
    if shown.dtype == np.bool_:
        shown = shown.astype(np.float64)
    whole = np.issubdtype(shown.dtype, np.integer)
    values = _within(shown, 0, 255) if whole else np.rint(_within(shown, 0.0, 1.0) * 255)
    return np.ascontiguousarray(values, np.uint8)


def _within(values: NDArray[Any], least: float, most: float) -> NDArray[Any]:
    if not np.issubdtype(values.dtype, np.number) or np.issubdtype(values.dtype, np.complexfloating):
        raise ValueError(f"give numbers, not {values.dtype}")
    if values.size and not (values.min() >= least and values.max() <= most):  # false for NaN as well
        raise ValueError(f"values lie from {least:g} to {most:g}, not from {values.min()} to {values.max()}")
    return values


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """PNG (ISO 15948) of 8 bits, without filters."""
    height, width, channels = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, _CHANNELS[channels], 0, 0, 0)
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
