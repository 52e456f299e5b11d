"""What steps give back and take: small values in the log, large ones in the object store."""

import json
from collections.abc import Mapping

from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace_kit.errors import InvalidArgument
from headrace_kit.objects import ObjectStore
from headrace_orchestrator import domain

MAX_INLINE_BYTES = 64 * 1024
MAX_OUTPUT_BYTES = 8 * 1024 * 1024
MAX_ARGUMENTS_BYTES = 32 * 1024 * 1024


class Outputs:
    """Moves outputs between workers, log and object store."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def store(self, run: str, text: str) -> resources.StepOutput:
        """An output as the log has it.

        Raises:
            InvalidArgument: it is larger than ``MAX_OUTPUT_BYTES``, or not JSON.
            Unavailable: it is large and the object store can not be reached.
        """
        content = text.encode()
        if len(content) > MAX_OUTPUT_BYTES:
            raise InvalidArgument(f"an output may have {MAX_OUTPUT_BYTES} bytes, not {len(content)}: log an artifact")
        try:
            json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"the output is not JSON: {error}") from error
        if len(content) <= MAX_INLINE_BYTES:
            return resources.StepOutput(json=text)
        reference = await self._objects.put(run.split("/")[1], content, "application/json")
        return resources.StepOutput(object=reference)

    async def read(self, output: resources.StepOutput) -> str:
        """The JSON of an output, wherever it is kept. Raises KitError when it can not be read."""
        if output.HasField("object"):
            return (await self._objects.get(output.object)).decode()
        return output.json

    async def lease(self, run: resources.PipelineRun, step_id: str) -> service.Lease:
        """The lease of a step's newest attempt, with its arguments.

        Raises:
            InvalidArgument: the arguments are too large together.
            KitError: one can not be read from the object store.
        """
        step, definition = domain.step_state(run, step_id), domain.step_definition(run, step_id)
        lease = service.Lease(
            token=step.token,
            run=run.name,
            step=step.id,
            attempt=step.attempt,
            function=definition.function,
            source_path=run.definition.source_path,
            timeout_s=domain.timeout_s(definition),
            causation_id=step.event_id,
            correlation_id=run.correlation_id,
            on_behalf_of=run.actor,
        )
        outputs = {each.id: each.output for each in run.steps}
        size = 0
        for source in definition.inputs:
            text = await self._value(source, run.parameters, outputs)
            size += len(text)
            if size > MAX_ARGUMENTS_BYTES:
                raise InvalidArgument(f"the arguments of {step_id} have over {MAX_ARGUMENTS_BYTES} bytes together")
            lease.arguments[source.argument] = text
        return lease

    async def _value(
        self,
        source: resources.StepInput,
        parameters: Mapping[str, str],
        outputs: Mapping[str, resources.StepOutput],
    ) -> str:
        match source.WhichOneof("source"):
            case "step":
                return await self.read(outputs[source.step])
            case "parameter":
                return parameters[source.parameter]
            case "list":
                items = [await self._value(item, parameters, outputs) for item in source.list.items]
                return f"[{','.join(items)}]"
            case _:
                return source.constant_json
