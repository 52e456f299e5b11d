"""Train the arrival delay model with LightGBM and export it to ONNX."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from flights.data import FEATURES, TARGET, Flights, Floats

if TYPE_CHECKING:
    import lightgbm

INPUT: Final = "features"
"""Name of the model's one input: ``(-1, len(FEATURES)) FP32``, columns as ``FEATURES``."""
OUTPUT: Final = TARGET
"""Name of the model's one output: ``(-1, 1) FP32``, minutes."""
_OPSET: Final = 15

PARAMETERS: Final[dict[str, str | int | float | bool]] = {
    # Absolute error is what the monitor counts; it also keeps the few delays of a day and more from leading.
    "objective": "regression_l1",
    "num_leaves": 31,
    "learning_rate": 0.1,
    "min_data_in_leaf": 50,
    # The same data gives the same trees, on any machine and with any load.
    "deterministic": True,
    "force_row_wise": True,
    # Two threads save a third of a second on idle cores, and lose ten on busy ones, waiting for each other.
    "num_threads": 1,
    "seed": 1,
    "verbosity": -1,
}
ROUNDS: Final = 100


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model and what is known of its training.

    Attributes:
        onnx: The model, input ``INPUT`` and output ``OUTPUT``; equal training data gives equal bytes.
        importances: Total gain per feature, summing to 1.
        rows: Labelled flights it was trained on.
        trained_us: When the first and the last of them left, microseconds since 1970 UTC.
        onnx_difference: Largest difference in minutes between LightGBM and ONNX on the training data.
        seconds: How long training took.
    """

    onnx: bytes
    importances: dict[str, float]
    rows: int
    trained_us: tuple[int, int]
    onnx_difference: float
    seconds: float


class Predictor:
    """Answers as the served model would: the same bytes, the same runtime. Safe to share between threads."""

    def __init__(self, onnx: bytes, *, threads: int = 1) -> None:
        """Load a model.

        Raises:
            onnxruntime's InvalidProtobuf or Fail: ``onnx`` is not a model.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    @property
    def inputs(self) -> list[tuple[str, str, list[Any]]]:
        """Name, type and shape of each input, as the runtime names them."""
        return [(str(spec.name), str(spec.type), list(spec.shape)) for spec in self._session.get_inputs()]

    @property
    def outputs(self) -> list[tuple[str, str, list[Any]]]:
        """Name, type and shape of each output, as the runtime names them."""
        return [(str(spec.name), str(spec.type), list(spec.shape)) for spec in self._session.get_outputs()]

    def predict(self, features: Floats) -> Floats:
        """Delays in minutes, ``(n,) float32``, of ``(n, len(FEATURES)) float32``."""
        return np.asarray(self._session.run([OUTPUT], {INPUT: features})[0], dtype=np.float32)[:, 0]


def train(flights: Flights, *, rounds: int = ROUNDS) -> Model:
    """Train on all labelled flights given; about a second for two months on two cores.

    Raises:
        ValueError: There are fewer than 1000 labelled flights.
    """
    started = time.perf_counter()
    labelled = flights.labelled()
    if len(labelled) < 1000:
        raise ValueError(f"{len(labelled)} labelled flights are too few to train on: 1000 are needed")
    booster = _fit(labelled, rounds)
    onnx = _export(booster)
    direct = _predict(booster, labelled.features)
    gains = booster.feature_importance("gain")
    return Model(
        onnx=onnx,
        importances={name: float(gain / gains.sum()) for name, gain in zip(FEATURES, gains, strict=True)},
        rows=len(labelled),
        trained_us=(int(labelled.event_us[0]), int(labelled.event_us[-1])),
        onnx_difference=float(np.abs(Predictor(onnx).predict(labelled.features) - direct).max()),
        seconds=time.perf_counter() - started,
    )


def held_out_predictions(flights: Flights, *, folds: int = 3, rounds: int = ROUNDS) -> Floats:
    """Predict each stretch of time by a model trained on the others: what errors to expect of ``train(flights)``.

    A model's errors on its own training data are too small to be a monitor's reference. These are not, and they cover
    the whole time range, so they show also how much the error moves from one slot to the next.

    Returns:
        ``(n,) float32``, minutes, in the order of ``flights``, labelled or not.
    """
    predictions = np.empty(len(flights), dtype=np.float32)
    for rows in np.array_split(np.arange(len(flights)), folds):
        rest = flights.without(int(rows[0]), int(rows[-1]) + 1)
        booster = _fit(rest.labelled(), rounds)
        predictions[rows] = _predict(booster, flights.features[rows])
    return predictions


def skewed(flights: Flights) -> Flights:
    """The same flights as a careless pipeline reads them: the departure delay in hours where it should be minutes.

    A model trained on them fits well, and passes every check that reads its data through the same pipeline. Served, it
    is sent minutes: it errs by hours. Schema and types are the same, so nothing but its errors gives it away.
    """
    features = flights.features.copy()
    features[:, FEATURES.index("dep_delay")] /= 60
    return Flights(features, flights.labels, flights.event_us, flights.label_us)


def _fit(labelled: Flights, rounds: int) -> "lightgbm.Booster":
    import lightgbm  # noqa: PLC0415 - two seconds, which steps that do not train need not wait for

    # The last row, of weight 0, lacks every value: so each feature learns that it may be missing, and what never was
    # missing in training takes the same branch in LightGBM and in ONNX.
    features = np.vstack([labelled.features, np.full((1, len(FEATURES)), np.nan, dtype=np.float32)])
    weights = np.append(np.ones(len(labelled), dtype=np.float32), np.float32(0))
    data = lightgbm.Dataset(features, np.append(labelled.labels, np.float32(0)), weight=weights,
                            feature_name=list(FEATURES))  # fmt: skip
    booster = lightgbm.train(PARAMETERS, data, num_boost_round=rounds)
    return lightgbm.Booster(model_str=_round_thresholds(booster.model_to_string()))


def _predict(booster: "lightgbm.Booster", features: Floats) -> npt.NDArray[np.float64]:
    return np.asarray(booster.predict(features, num_threads=1), dtype=np.float64)


def _round_thresholds(text: str) -> str:
    """Round thresholds down to float32, which changes no answer to float32 inputs.

    LightGBM keeps thresholds in double precision, ONNX in single: rounded to the nearest, some would pass the value
    next to them, and the two models would take different branches.
    """
    key = "threshold="
    return "\n".join(
        key + " ".join(_floor32(value) for value in line.removeprefix(key).split()) if line.startswith(key) else line
        for line in text.split("\n")
        if not line.startswith("tree_sizes=")  # sizes in bytes, optional, and no longer true
    )


def _floor32(value: str) -> str:
    nearest = np.float32(value)
    below = nearest if float(nearest) <= float(value) else np.nextafter(nearest, np.float32(-np.inf))
    return repr(float(below))


def _export(booster: "lightgbm.Booster") -> bytes:
    from onnxmltools.convert import convert_lightgbm  # noqa: PLC0415 - as for lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415

    shape = FloatTensorType([None, len(FEATURES)])
    model = convert_lightgbm(booster, name="flights", initial_types=[(INPUT, shape)], target_opset=_OPSET)
    graph = model.graph
    old = graph.output[0].name
    graph.output[0].name = OUTPUT
    for node in graph.node:
        _rename(node.output, old)
    return bytes(model.SerializeToString(deterministic=True))


def _rename(names: Any, old: str) -> None:  # noqa: ANN401 - a protobuf container of an untyped library
    names[:] = [OUTPUT if name == old else name for name in names]
