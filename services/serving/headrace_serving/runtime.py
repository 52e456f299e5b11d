"""How a version computes: one loaded model, whatever made it. onnxruntime is known here."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import onnxruntime

from headrace_kit.errors import FailedPrecondition
from headrace_serving.contract import Contract, Spec
from headrace_serving.estimator import as_text
from headrace_serving.tensors import BYTES, DTYPES, OBJECT, Array

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
            raise ModelNotLoadable(f"onnxruntime can not load it: {first_line(error)}") from error
        self._check(self._session.get_inputs(), contract.inputs, "input")
        self._check(self._session.get_outputs(), contract.outputs, "output", more=True)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """As ``Runtime.run``."""
        feed = {name: as_text(array) if array.dtype == OBJECT else array for name, array in inputs.items()}
        try:
            return dict(zip(outputs, self._session.run(list(outputs), feed), strict=True))
        except Exception as error:  # as above
            raise ModelFailed(f"the model failed: {first_line(error)}") from error

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


def first_line(error: Exception) -> str:
    """What an error of a library says, in short."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
