"""Confusion matrices and feature importances, as data and as pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import orjson
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """Counts of true (rows) against predicted (columns) classes: ``counts`` is ``(k, k) int64``."""

    labels: tuple[str, ...]
    counts: NDArray[np.int64]

    def to_json(self) -> bytes:
        """``{"labels": [...], "counts": [[...]]}``."""
        return orjson.dumps({"labels": self.labels, "counts": self.counts.tolist()})

    def to_svg(self) -> bytes:
        """A picture of the matrix; each row is shaded by its share."""
        cell, margin, size = 72, 110, len(self.labels)
        totals = np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        shares = self.counts / totals
        parts: list[str] = []
        for row in range(size):
            middle = margin + row * cell + cell // 2
            parts.append(_text(margin - 8, middle + 5, self.labels[row], anchor="end"))
            parts.append(_text(middle, margin - 12, self.labels[row]))
            for column in range(size):
                share = float(shares[row, column])
                left, top = margin + column * cell, margin + row * cell
                parts.append(
                    f'<rect x="{left}" y="{top}" width="{cell}" height="{cell}" fill="#2563eb"'
                    f' fill-opacity="{share:.3f}" stroke="#94a3b8"/>'
                )
                shade = "#ffffff" if share > 0.5 else "#1f2937"
                parts.append(_text(left + cell // 2, top + cell // 2 + 5, str(self.counts[row, column]), fill=shade))
        width = margin + size * cell + 20
        return _svg(width, width, parts)


def confusion_matrix(true: ArrayLike, predicted: ArrayLike, labels: Sequence[object] | None = None) -> ConfusionMatrix:
    """Counts classes.

    Args:
        true: True classes, ``(n,)``.
        predicted: Predicted classes, ``(n,)``.
        labels: Classes in order; by default all that occur, sorted.

    Raises:
        ValueError: The lengths differ, or a class is not among ``labels``.
    """
    true_array, predicted_array = np.asarray(true).ravel(), np.asarray(predicted).ravel()
    if true_array.shape != predicted_array.shape:
        raise ValueError(f"{true_array.size} true classes and {predicted_array.size} predicted ones")
    names = [str(label) for label in labels] if labels is not None else None
    true_names, predicted_names = (
        [str(each) for each in true_array.tolist()],
        [str(each) for each in predicted_array.tolist()],
    )
    if names is None:
        present = np.unique(np.concatenate([true_array, predicted_array]))
        names = [str(each) for each in present.tolist()]
    places = {name: index for index, name in enumerate(names)}
    unknown = sorted((set(true_names) | set(predicted_names)) - set(places))
    if unknown:
        raise ValueError(f"classes {unknown[:5]} are not among the labels {names[:20]}")
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, ([places[each] for each in true_names], [places[each] for each in predicted_names]), 1)
    return ConfusionMatrix(tuple(names), counts)


def importances_json(importances: Mapping[str, float]) -> bytes:
    """``[{"feature": ..., "importance": ...}, ...]``, greatest first."""
    ordered = sorted(importances.items(), key=lambda item: -item[1])
    return orjson.dumps([{"feature": name, "importance": float(value)} for name, value in ordered])


def importances_svg(importances: Mapping[str, float], *, most: int = 30) -> bytes:
    """A bar for each of the ``most`` most important features, greatest first."""
    ordered = sorted(importances.items(), key=lambda item: -item[1])[:most]
    height, label, width = 24, 180, 420
    greatest = max((value for _, value in ordered), default=0.0) or 1.0
    parts: list[str] = []
    for place, (name, value) in enumerate(ordered):
        top = 10 + place * height
        length = max(value / greatest, 0.0) * width
        parts.append(_text(label - 8, top + 16, name, anchor="end"))
        parts.append(f'<rect x="{label}" y="{top + 3}" width="{length:.1f}" height="{height - 6}" fill="#2563eb"/>')
        parts.append(_text(label + int(length) + 6, top + 16, f"{value:.4g}", anchor="start"))
    return _svg(label + width + 90, 20 + len(ordered) * height, parts)


def _text(x: int, y: int, text: str, *, anchor: str = "middle", fill: str = "#1f2937") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{fill}">{escape(text)}</text>'


def _svg(width: int, height: int, parts: Sequence[str]) -> bytes:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="system-ui, sans-serif" font-size="13"><rect width="100%" height="100%" fill="#ffffff"/>'
    )
    return (head + "".join(parts) + "</svg>").encode()
