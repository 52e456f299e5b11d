"""scikit-learn models from skops packages. skops is known here; importing it takes seconds and 100 MB."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import skops.io

from headrace_serving.contract import Contract
from headrace_serving.estimator import predict
from headrace_serving.runtime import ModelFailed, ModelNotLoadable, first_line
from headrace_serving.tensors import Array

TRUSTED_TYPES: Final = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._gb_losses.LeastSquaresError",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogLink",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss.loss.HalfSquaredError",
    "numpy.dtype",
)
"""Types a skops package may hold beside those skops itself trusts: data, no code. Whatever else it names is refused."""


class SklearnRuntime:
    """A scikit-learn model from a skops package.

    Raises:
        ModelNotLoadable: It is no skops package, or holds types outside of ``TRUSTED_TYPES``.
    """

    platform = "sklearn_skops"

    def __init__(self, package: bytes, contract: Contract) -> None:
        try:
            unknown = sorted(set(skops.io.get_untrusted_types(data=package)) - set(TRUSTED_TYPES))
            if unknown:
                raise ModelNotLoadable(f"the package holds types that are not trusted: {', '.join(unknown[:10])}")
            self._model: Any = skops.io.loads(package, trusted=list(TRUSTED_TYPES))  # Any: whatever estimator it is
        except ModelNotLoadable:
            raise
        except Exception as error:  # skops raises what its parser meets
            raise ModelNotLoadable(f"skops can not load it: {first_line(error)}") from error
        self._inputs = contract.inputs

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """As ``Runtime.run``."""
        try:
            return predict(self._model, [inputs[each.name] for each in self._inputs], outputs)
        except Exception as error:  # whatever the estimator raises
            raise ModelFailed(f"the model failed: {first_line(error)}") from error

    def close(self) -> None:
        """As ``Runtime.close``."""
        del self._model
