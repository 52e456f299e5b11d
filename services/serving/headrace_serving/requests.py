"""Checks of requests before anything is decided; each raises InvalidArgument with the path of the field."""

from headrace.api.serving.v1 import service_pb2 as service
from headrace.api.serving.v1.resources_pb2 import TelemetryMode
from headrace_kit.errors import InvalidArgument
from headrace_kit.names import ENDPOINT, MODEL, VERSION, parse_id, require_text
from headrace_kit.validate import require_enum, require_range, require_size

MAX_ROUTES = 10
MAX_STEPS = 20
_MODES = {int(number): name for name, number in TelemetryMode.items()}


def check_create(request: service.CreateEndpointRequest) -> None:
    """An endpoint and a model of one project."""
    project = ENDPOINT.parse(request.name, field="name")["project"]
    if MODEL.parse(request.model, field="model")["project"] != project:
        raise InvalidArgument("the model is of another project", field="model")
    if request.alias:
        parse_id(request.alias, field="alias")
    require_enum(request.telemetry, field="telemetry", names=_MODES)


def check_configure(request: service.ConfigureEndpointRequest) -> None:
    """Settings of an endpoint."""
    ENDPOINT.parse(request.name, field="name")
    require_enum(request.telemetry, field="telemetry", names=_MODES)


def check_routes(request: service.SetRoutesRequest) -> None:
    """1 to 10 versions, each once, whose shares sum to 100."""
    ENDPOINT.parse(request.name, field="name")
    require_size(request.routes, field="routes", least=1, most=MAX_ROUTES)
    seen: set[str] = set()
    for index, each in enumerate(request.routes):
        check_version(each.version, field=f"routes[{index}].version")
        require_range(each.weight, field=f"routes[{index}].weight", least=0, most=100)
        if each.version in seen:
            raise InvalidArgument(f"{each.version} is there twice", field=f"routes[{index}].version")
        seen.add(each.version)
    total = sum(each.weight for each in request.routes)
    if total != 100:
        raise InvalidArgument(f"the shares sum to {total}, not 100", field="routes")


def check_rollout(request: service.StartRolloutRequest) -> None:
    """A version and ascending steps."""
    ENDPOINT.parse(request.endpoint, field="endpoint")
    check_version(request.version, field="version")
    require_size(request.steps, field="steps", most=MAX_STEPS)
    for index, weight in enumerate(request.steps):
        require_range(weight, field=f"steps[{index}]", least=1, most=99)
        if index and weight <= request.steps[index - 1]:
            raise InvalidArgument("the steps ascend", field=f"steps[{index}]")
    require_range(request.step_rows, field="step_rows", least=0, most=1 << 40)
    require_range(request.step_s, field="step_s", least=0, most=1e7)
    require_range(request.maximum_error_rate, field="maximum_error_rate", least=0, most=1)
    require_range(request.step_timeout_s, field="step_timeout_s", least=0, most=1e7)


def check_change(endpoint: str, version: str, reason: str) -> None:
    """What blocking and unblocking have in common."""
    ENDPOINT.parse(endpoint, field="endpoint")
    check_version(version, field="version")
    check_reason(reason)


def check_reason(reason: str) -> None:
    """A reason, which must be given."""
    require_text(reason, field="reason", most=2000, lines=True)


def check_version(version: str, *, field: str) -> None:
    """The resource name of a version."""
    number = VERSION.parse(version, field=field)["version"]
    if not number.isdecimal() or number.startswith("0") or len(number) > 9:
        raise InvalidArgument("a version's number is 1 to 999999999", field=field)
