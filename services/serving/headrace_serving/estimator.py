"""scikit-learn estimators: from the inputs of a signature to its outputs. Imports little, for the pickle's child."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from headrace_serving.tensors import OBJECT, Array, as_bytes

PROBABILITIES: Final = frozenset({"predict_proba", "probabilities", "probability", "scores"})
"""Names of outputs that mean ``predict_proba``; any other means ``predict``."""


def predict(model: Any, inputs: Sequence[Array], outputs: Sequence[str]) -> dict[str, Array]:  # noqa: ANN401 - any estimator
    """The outputs of a scikit-learn estimator.

    One input is its matrix; several are its columns, in the order of the signature.
    """
    matrix = inputs[0] if len(inputs) == 1 else np.column_stack([each.reshape(len(each), -1) for each in inputs])
    if matrix.ndim == 1:
        matrix = matrix.reshape(-1, 1)
    if matrix.dtype == OBJECT:
        matrix = as_text(matrix)
    computed: dict[bool, Array] = {}
    for wants in {each in PROBABILITIES for each in outputs}:
        computed[wants] = np.asarray(model.predict_proba(matrix) if wants else model.predict(matrix))
    return {each: computed[each in PROBABILITIES] for each in outputs}


def as_text(array: Array) -> Array:
    """BYTES as texts."""
    words = [as_bytes(each).decode(errors="replace") for each in array.ravel().tolist()]
    return np.array(words, dtype=object).reshape(array.shape)
