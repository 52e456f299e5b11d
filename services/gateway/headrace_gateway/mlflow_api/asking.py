"""One request of an MLflow client: its arguments, its project, and calls to services in its name."""

from __future__ import annotations

import hashlib
import math
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID, uuid4

import orjson
from google.protobuf.message import Message
from starlette.requests import Request

from headrace_gateway.mlflow_api.errors import MlflowError
from headrace_gateway.platform import Services
from headrace_kit.objects import ObjectStore

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""Largest JSON body."""
_INT64: Final = 1 << 63
_DIGITS: Final = re.compile(r"-?[0-9]{1,19}")
_SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

R = TypeVar("R")


class Arguments:
    """Named values as they came, with types on demand. All getters raise MlflowError for a value of another type."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def text(self, *names: str, default: str = "") -> str:
        """The first given of ``names`` (a field and its older name), or the default."""
        for name in names:
            value = self._values.get(name)
            if value is not None:
                if not isinstance(value, str):
                    if isinstance(value, int | float) and not isinstance(value, bool):
                        return str(value)  # ids and versions are sometimes sent as numbers
                    raise _wrong(name, "a string", value)
                return value
        return default

    def required(self, *names: str) -> str:
        """As ``text``, but it must be given and not be empty."""
        value = self._values.get(names[0])
        if type(value) is str and value:
            return value
        found = self.text(*names)
        if not found:
            raise MlflowError(f"Missing value for required parameter '{names[0]}'.")
        return found

    def given(self, name: str) -> bool:
        """Whether there is a value."""
        return self._values.get(name) is not None

    def integer(self, name: str, default: int = 0) -> int:
        """A 64-bit integer, given as a number or as decimal digits."""
        value = self._values.get(name)
        if type(value) is int and -_INT64 <= value < _INT64:
            return value
        if value is None or value == "":
            return default
        found: int | None = None
        if isinstance(value, int) and not isinstance(value, bool):
            found = value
        elif (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _DIGITS.fullmatch(value)):
            found = int(value)
        if found is None or not -_INT64 <= found < _INT64:
            raise _wrong(name, "an integer of 64 bits", value)
        return found

    def number(self, name: str) -> float:
        """A number; NaN and infinities are the strings that JSON has for them."""
        value = self._values.get(name)
        if type(value) is float:
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                raise _wrong(name, "a number", value) from None
        if isinstance(value, str):
            if value in _SPECIAL:
                return _SPECIAL[value]
            try:
                return float(value)
            except ValueError:
                pass
        raise _wrong(name, "a number", value)

    def flag(self, name: str) -> bool:
        """A boolean; False when it is not given."""
        value = self._values.get(name, False)
        if value in (True, "true", "True"):
            return True
        if value in (False, None, "false", "False", ""):
            return False
        raise _wrong(name, "a boolean", value)

    def texts(self, name: str) -> list[str]:
        """A list of strings; a single one counts as a list of it."""
        value = self._values.get(name)
        if value is None:
            return []
        values: Sequence[object] = value if isinstance(value, list) else [value]
        return [Arguments({name: each}).text(name) for each in values]

    def items(self, name: str) -> list[Arguments]:
        """A list of objects."""
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise _wrong(name, "a list of objects", value)
        return [Arguments(each) for each in value]

    def item(self, name: str) -> Arguments:
        """An object; an empty one when it is not given."""
        value = self._values.get(name)
        if value is None:
            return Arguments({})
        if not isinstance(value, dict):
            raise _wrong(name, "an object", value)
        return Arguments(value)

    def texts_by_key(self, name: str) -> dict[str, str]:
        """An object whose values are strings; an empty one when it is not given."""
        held = self.item(name)
        return {key: held.text(key) for key in held.names}

    @property
    def names(self) -> list[str]:
        """What is given."""
        return list(self._values)

    def pairs(self, name: str) -> dict[str, str]:
        """A list of ``{"key", "value"}`` as a mapping; of one key twice, the last."""
        return {each.required("key"): each.text("value") for each in self.items(name)}


class _Stub(Protocol):
    # Any: the request and the response of whichever method, which grpc does not type.
    def __call__(
        self,
        request: Any,  # noqa: ANN401 - see above
        /,
        *,
        metadata: Sequence[tuple[str, str]],
    ) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True)
class Backend:
    """What the API stands on.

    Attributes:
        services: Stubs of the services.
        objects: Where the bytes of artifacts lie.
        project: The project of requests that name none.
        experiments: (project, number) -> resource name, of experiments met lately. A pair never changes.
        numbers: The same the other way round, by resource name.
    """

    services: Services
    objects: ObjectStore
    project: str
    experiments: OrderedDict[tuple[str, int], str] = field(default_factory=OrderedDict[tuple[str, int], str])
    numbers: OrderedDict[str, int] = field(default_factory=OrderedDict[str, int])


class Ask(Arguments):
    """A request with its arguments.

    Attributes:
        request: As it came.
        backend: What answers it.
        services: Stubs of the services.
        project: Id of the project it is about.
    """

    __slots__ = ("_metadata", "backend", "project", "request", "services")

    def __init__(self, request: Request, values: Mapping[str, object], backend: Backend) -> None:
        super().__init__(values)
        self.request, self.backend, self.services = request, backend, backend.services
        self.project = str(request.path_params.get("project", backend.project))
        self._metadata = (("authorization", request.headers.get("authorization", "")),)

    @property
    def parent(self) -> str:
        """Resource name of the project."""
        return f"projects/{self.project}"

    def path(self, name: str) -> str:
        """A part of the path."""
        return str(self.request.path_params[name])

    async def call(self, method: _Stub, request: Message) -> Any:  # noqa: ANN401 - see _Stub
        """Calls a service in the caller's name."""
        return await method(request, metadata=self._metadata)

    async def command(self, method: _Stub, request: Message) -> Any:  # noqa: ANN401 - see _Stub
        """As ``call``, with a command id of its own."""
        request.command_id = str(uuid4())  # type: ignore[attr-defined] # every command has it
        return await self.call(method, request)


Handler = Callable[[Ask], Awaitable[R]]


def content_id(request: Message) -> str:
    """A command id made of what the command says: who sends the same again, sends a repeat."""
    name: str = request.DESCRIPTOR.full_name
    digest = hashlib.sha256(name.encode() + b"\0" + request.SerializeToString(deterministic=True)).digest()
    return str(UUID(bytes=digest[:16], version=5))


async def arguments_of(request: Request) -> dict[str, object]:
    """The arguments of a request: the JSON object of its body, or its query.

    Raises:
        MlflowError: The body is too large, or no JSON object.
    """
    values: dict[str, object] = {}
    for name in request.query_params:
        found = request.query_params.getlist(name)
        values[name] = found if len(found) > 1 else found[0]
    body = await _body(request)
    if not body:
        return values
    try:
        loaded = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MlflowError(f"Malformed JSON in the body: {error}", "MALFORMED_REQUEST") from None
    if not isinstance(loaded, dict):
        raise MlflowError("The body must be a JSON object.", "MALFORMED_REQUEST")
    return values | loaded


async def _body(request: Request) -> bytes:
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > MAX_BODY_BYTES:
            raise MlflowError(f"The body is over {MAX_BODY_BYTES} bytes.")
    return bytes(found)


def _wrong(name: str, wanted: str, value: object) -> MlflowError:
    return MlflowError(f"Invalid value {str(value)[:100]!r} for parameter '{name}': expected {wanted}.")
