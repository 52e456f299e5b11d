from __future__ import annotations

import os
import pickle
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression

from headrace.api.common.v1 import resources_pb2 as common
from headrace.api.registry.v1 import resources_pb2 as registry
from headrace_serving.contract import Contract
from headrace_serving.loader import build_version
from headrace_serving.quarantine import PickleRuntime
from headrace_serving.runtime import ModelFailed, ModelNotLoadable, OnnxRuntime
from headrace_serving.skops_runtime import SklearnRuntime
from tests.support.serving import FORMATS, package, signature

ROWS = np.array([[1, 2, 3], [4, 5, 6]], dtype="<f4")


@pytest.mark.parametrize("kind", FORMATS)
async def test_every_format_gives_the_same_answer(kind: str) -> None:
    version = registry.Version(name="v", number=1, format=FORMATS[kind], signature=signature())
    loaded = build_version(version, package(2.0, kind), ThreadPoolExecutor(1))
    computed = await loaded.run({"X": ROWS}, ["variable"], rows=2)
    loaded.retire()
    np.testing.assert_allclose(computed["variable"], [[12], [30]], rtol=1e-6)
    assert computed["variable"].dtype == np.dtype("<f4")


def test_a_signature_that_differs_from_the_model_is_refused() -> None:
    other = signature()
    other.inputs[0].datatype = common.DATA_TYPE_FP64
    with pytest.raises(ModelNotLoadable, match="FP64 in the signature"):
        OnnxRuntime(package(1.0), Contract(other))
    other = signature()
    other.outputs[0].name = "nothing"
    with pytest.raises(ModelNotLoadable, match="nothing"):
        OnnxRuntime(package(1.0), Contract(other))


def test_probabilities_and_labels_come_from_a_classifier() -> None:
    spec = common.Signature(
        inputs=signature().inputs,
        outputs=[
            common.TensorSpec(name="label", datatype=common.DATA_TYPE_INT64, shape=[-1]),
            common.TensorSpec(name="probabilities", datatype=common.DATA_TYPE_FP32, shape=[-1, 2]),
        ],
    )
    model = RandomForestClassifier(3, random_state=0).fit(ROWS, [0, 1])
    runtime = SklearnRuntime(skops.io.dumps(model), Contract(spec))
    computed = runtime.run({"X": ROWS}, ["label", "probabilities"])
    assert computed["label"].tolist() == model.predict(ROWS).tolist()
    assert computed["probabilities"].tolist() == model.predict_proba(ROWS).tolist()


class _Foreign(LinearRegression):  # type: ignore[misc]  # scikit-learn has no types
    """An estimator that skops does not trust."""


def test_a_type_that_is_not_trusted_is_refused() -> None:
    content = skops.io.dumps(_Foreign().fit(ROWS, [1, 2]))
    with pytest.raises(ModelNotLoadable, match="not trusted"):
        SklearnRuntime(content, Contract(signature()))


class _Call:
    """A pickle that calls a function when it is opened."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, object]:
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        _Call(open, "/etc/passwd"),
        _Call(open, "/proc/1/environ", "rb"),
        _Call(os.mkdir, "/tmp/headrace-should-not-exist"),
        _Call(os.system, "true"),
        _Call(os.execv, "/bin/true", ["true"]),
    ],
    ids=["read a file", "read a process", "make a folder", "start a shell", "become a program"],
)
def test_an_opened_pickle_reaches_nothing(call: _Call) -> None:
    with pytest.raises(ModelNotLoadable):
        PickleRuntime(pickle.dumps(call), Contract(signature()))


def test_a_killed_child_is_the_models_failure() -> None:
    runtime = PickleRuntime(package(2.0, "pickle"), Contract(signature()))
    os.kill(runtime.pid, signal.SIGKILL)
    with pytest.raises(ModelFailed):
        runtime.run({"X": ROWS}, ["variable"])


def test_closing_ends_the_child() -> None:
    runtime = PickleRuntime(package(2.0, "pickle"), Contract(signature()))
    runtime.close()
    assert not psutil.pid_exists(runtime.pid)
