"""How a version computes: one loaded model, whatever made it. onnxruntime and scikit-learn are known here."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import onnxruntime
import skops.io

from headrace_kit.errors import FailedPrecondition
from headrace_serving.contract import Contract, Spec
from headrace_serving.estimator import as_text, predict
from headrace_serving.tensors import BYTES, DTYPES, OBJECT, Array

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
_EXTERNAL: Final = re.compile(rb"\n\x08location\x12")
"""An entry ``location`` of a tensor's external data: the model would read files of this machine."""
_ORT_TYPES: Final = {
    "tensor(bool)": "BOOL",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class ModelNotLoadable(FailedPrecondition):
    """A package can not be loaded as what its version says it is."""

    default_reason = "MODEL_NOT_LOADABLE"


class ModelFailed(FailedPrecondition):
    """A model failed on inputs that fit its signature."""

    default_reason = "MODEL_FAILED"


class Runtime(Protocol):
    """A loaded model. Safe for several threads."""

    platform: str

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """The outputs by name; inputs fit the signature. Blocks. Raises ModelFailed."""
        ...

    def close(self) -> None:
        """Frees what it holds; no call is under way."""
        ...


class OnnxRuntime:
    """A model by onnxruntime, one thread an inference.

    Raises:
        ModelNotLoadable: It is no valid model, refers to files, or differs from its signature.
    """

    platform = "onnxruntime_onnx"

    def __init__(self, package: bytes, contract: Contract) -> None:
        if _EXTERNAL.search(package):
            raise ModelNotLoadable("the model refers to files; put its weights into the package")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            # Any: onnxruntime has no types.
            self._session: Any = onnxruntime.InferenceSession(package, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no root but Exception
            raise ModelNotLoadable(f"onnxruntime can not load it: {_first_line(error)}") from error
        self._check(self._session.get_inputs(), contract.inputs, "input")
        self._check(self._session.get_outputs(), contract.outputs, "output", more=True)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """As ``Runtime.run``."""
        feed = {name: as_text(array) if array.dtype == OBJECT else array for name, array in inputs.items()}
        try:
            return dict(zip(outputs, self._session.run(list(outputs), feed), strict=True))
        except Exception as error:  # as above
            raise ModelFailed(f"the model failed: {_first_line(error)}") from error

    def close(self) -> None:
        """As ``Runtime.close``."""
        del self._session

    @staticmethod
    def _check(found: Sequence[Any], specs: Sequence[Spec], kind: str, *, more: bool = False) -> None:
        types = {each.name: _ORT_TYPES.get(each.type, each.type) for each in found}
        for spec in specs:
            if types.get(spec.name) != spec.datatype:
                have = types.get(spec.name, "nothing of that name")
                raise ModelNotLoadable(
                    f"{kind} {spec.name} is {spec.datatype} in the signature, and {have} in the model"
                )
        unknown = types.keys() - {each.name for each in specs}
        if unknown and not more:
            raise ModelNotLoadable(f"{kind} {min(unknown)} of the model is not in the signature")


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
            raise ModelNotLoadable(f"skops can not load it: {_first_line(error)}") from error
        self._inputs = contract.inputs

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """As ``Runtime.run``."""
        try:
            return predict(self._model, [inputs[each.name] for each in self._inputs], outputs)
        except Exception as error:  # whatever the estimator raises
            raise ModelFailed(f"the model failed: {_first_line(error)}") from error

    def close(self) -> None:
        """As ``Runtime.close``."""
        del self._model


def fitted(outputs: Mapping[str, Array], specs: Sequence[Spec]) -> dict[str, Array]:
    """Outputs in the types of the signature. Raises ModelFailed where a shape differs."""
    found: dict[str, Array] = {}
    known = {each.name: each for each in specs}
    for name, array in outputs.items():
        spec = known[name]
        if not spec.fits(array.shape) and array.ndim + 1 == len(spec.shape) and spec.shape[-1] in (1, -1):
            array = array.reshape(*array.shape, 1)  # noqa: PLW2901 - a column vector, as the signature has it
        if not spec.fits(array.shape):
            raise ModelFailed(f"output {name} has shape {list(array.shape)}, and {list(spec.shape)} in the signature")
        found[name] = _as_type(array, spec.datatype)
    return found


def _as_type(array: Array, datatype: str) -> Array:
    if datatype == BYTES:
        return array.astype(object)
    return array.astype(DTYPES[datatype], copy=False)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
