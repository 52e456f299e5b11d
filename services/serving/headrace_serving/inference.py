"""One inference, whatever brought it here: choose a version, check, compute, count, record."""

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Final

from headrace_kit.errors import InvalidArgument, ResourceExhausted
from headrace_serving import metrics
from headrace_serving.contract import check_segments
from headrace_serving.router import Plan, Router, Share, model_name
from headrace_serving.runtime import ModelFailed
from headrace_serving.telemetry import PredictionLog, now_us
from headrace_serving.tensors import InferRequest, InferResponse, Parameter, Tensor, tensor_of

PREDICTION_ID: Final = "prediction_id"
EVENT_TIME: Final = "event_time_us"
MODEL_VERSION: Final = "model_version"
MAX_ID: Final = 250
_EARLIEST_US, _LATEST_US = -2_208_988_800_000_000, 7_258_118_400_000_000  # 1900, 2200


class Inference:
    """Answers inferences. Belongs to one event loop.

    Args:
        router: Chooses versions.
        log: Takes what was answered.
        most: Inferences at once, above which further ones are refused.
    """

    def __init__(self, router: Router, log: PredictionLog, *, most: int) -> None:
        self._router, self._log, self._most = router, log, most
        self._in_flight = 0

    async def infer(self, request: InferRequest) -> InferResponse:
        """The answer of one version.

        Raises:
            InvalidArgument: The request does not fit the signature; ``field`` says where.
            NotFound: No such endpoint or version.
            ResourceExhausted: Too many inferences are under way.
            FailedPrecondition: The model failed (``MODEL_FAILED``).
            Unavailable: No version answers; or, for durable telemetry, Kafka does not.
        """
        if self._in_flight >= self._most:
            metrics.REFUSED.inc()
            raise ResourceExhausted(
                f"{self._most} inferences are under way", retry_after_s=0.1, reason="TOO_MANY_IN_FLIGHT"
            )
        self._in_flight += 1
        try:
            return await self._infer(request)
        finally:
            self._in_flight -= 1

    async def _infer(self, request: InferRequest) -> InferResponse:
        prediction_id = _prediction_id(request.parameters)
        time_us = _event_time(request.parameters)
        if len(request.id) > MAX_ID:
            raise InvalidArgument(f"an id has at most {MAX_ID} characters", field="id")
        key = request.id or prediction_id or secrets.token_hex(8)
        plan, share = self._router.choose(request.model, request.version, key)
        contract = share.version.contract
        names = contract.check_outputs(request.outputs)
        rows = contract.check_inputs(request.inputs)
        check_segments(request.segments, rows=rows)
        outputs = await self._compute(request, plan, share, names, rows=rows)
        prediction_id = await self._log.record(
            plan.endpoint.telemetry,
            endpoint=plan.endpoint.name,
            version=share.version.name,
            prediction_id=prediction_id,
            time_us=time_us,
            columns=contract.columns(request.inputs, request.segments, outputs, rows=rows),
        )
        return InferResponse(
            model=model_name(plan.endpoint.name),
            version=share.version.number,
            id=request.id or prediction_id,
            parameters={PREDICTION_ID: prediction_id, MODEL_VERSION: share.version.name},
            outputs=outputs,
        )

    @staticmethod
    async def _compute(
        request: InferRequest, plan: Plan, share: Share, names: Sequence[str], *, rows: int
    ) -> list[Tensor]:
        began = time.perf_counter()
        inputs = {each.name: each.array for each in request.inputs}
        with share.version.in_use():
            try:
                computed = await share.version.run(inputs, names, rows=rows)
                outputs = [tensor_of(name, computed[name]) for name in names]
            except (ModelFailed, TypeError) as error:
                share.traffic.failed()
                metrics.FAILED.labels(plan.endpoint.name, share.version.number).inc()
                raise error if isinstance(error, ModelFailed) else ModelFailed(str(error)) from error
        taken = time.perf_counter() - began
        share.traffic.answered(rows=rows, seconds=taken)
        metrics.SECONDS.labels(plan.endpoint.name, share.version.number).observe(taken)
        metrics.ROWS.labels(plan.endpoint.name, share.version.number).inc(rows)
        return outputs


def _prediction_id(parameters: Mapping[str, Parameter]) -> str:
    value = parameters.get(PREDICTION_ID, "")
    if not isinstance(value, str) or len(value) > MAX_ID:
        raise InvalidArgument(
            f"a prediction id is a text of at most {MAX_ID} characters", field=f"parameters.{PREDICTION_ID}"
        )
    return value


def _event_time(parameters: Mapping[str, Parameter]) -> int:
    value = parameters.get(EVENT_TIME)
    if value is None:
        return now_us()
    if isinstance(value, bool) or not isinstance(value, int) or not _EARLIEST_US <= value <= _LATEST_US:
        raise InvalidArgument(
            "give microseconds since 1970 UTC, between 1900 and 2200, as an integer", field=f"parameters.{EVENT_TIME}"
        )
    return value
