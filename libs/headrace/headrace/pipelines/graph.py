"""Pipelines and steps: plain functions, and the graph that calling them inside a pipeline draws.

Called on its own, a step or a pipeline is the function it was. A pipeline's function is traced once to learn its graph:
it is called with stand-ins for its parameters, and each step that it calls becomes a node and answers with a stand-in
for its output. What a pipeline does with stand-ins is hand them to steps; everything else belongs into a step.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import sys
import sysconfig
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Generic, NoReturn, ParamSpec, TypeVar, cast

from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.pipelines.codec import encode

P = ParamSpec("P")
R = TypeVar("R")
_TYPES: Final[Mapping[object, str]] = {int: "int", float: "float", str: "str", bool: "bool"}
_DEFAULT_TIMEOUT_S: Final = 3600.0


class Placeholder:
    """Stands for a value that exists when the pipeline runs: a parameter, or the output of a step."""

    def __init__(self, source: resources.StepInput, what: str) -> None:
        self._source = source
        self._what = what

    @property
    def step(self) -> str:
        """Id of the step whose output it is; empty for a parameter."""
        return self._source.step

    def as_input(self, argument: str) -> resources.StepInput:
        """As the source of an argument."""
        found = resources.StepInput()
        found.CopyFrom(self._source)
        found.argument = argument
        return found

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError(f"{self._what} exists only when the pipeline runs: work with it inside a step")

    __bool__ = __iter__ = __len__ = __getitem__ = __contains__ = __int__ = __float__ = __index__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __call__ = __str__ = __format__ = _refuse

    def __getattr__(self, name: str) -> NoReturn:
        self._refuse()


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step is run.

    Attributes:
        retries: Further attempts after the first one failed.
        backoff_s: Seconds before the second attempt; doubles each time.
        max_backoff_s: Most seconds between attempts.
        timeout_s: Seconds after which an attempt is ended.
        after: Ids of steps that must be completed first.
    """

    retries: int = 0
    backoff_s: float = 1.0
    max_backoff_s: float = 300.0
    timeout_s: float = _DEFAULT_TIMEOUT_S
    after: tuple[str, ...] = ()


class Step(Generic[P, R]):
    """A function that a worker runs in a process of its own. Made by ``step``."""

    def __init__(self, function: Callable[P, R], options: StepOptions) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.options = options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Inside the trace of a pipeline a node of its graph; anywhere else the plain function."""
        tracer = _tracer.get()
        if tracer is None:
            return self.function(*args, **kwargs)
        return cast("R", tracer.add(self.function, self.options, args=args, kwargs=kwargs))

    def after(self, *outputs: object) -> Step[P, R]:
        """This step, to run after others though it takes nothing from them: ``notify.after(model)(address)``."""
        if _tracer.get() is None:
            return self
        for each in outputs:
            if not (isinstance(each, Placeholder) and each.step):
                raise TypeError("after() takes outputs of steps")
        earlier = tuple(each.step for each in outputs if isinstance(each, Placeholder))
        return Step(self.function, replace(self.options, after=self.options.after + earlier))


class Tracer:
    """Draws a graph."""

    def __init__(self) -> None:
        self.steps: list[resources.StepDefinition] = []
        self.functions: list[Callable[..., object]] = []
        self._names: dict[str, int] = {}

    def add(
        self,
        function: Callable[..., object],
        options: StepOptions,
        *,
        args: Sequence[object],
        kwargs: Mapping[str, object],
    ) -> Placeholder:
        """A node, and the stand-in for its output."""
        bound = inspect.signature(function).bind(*args, **kwargs)
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", function.__name__)
        self._names[name] = self._names.get(name, 0) + 1
        node = resources.StepDefinition(
            id=name if self._names[name] == 1 else f"{name}-{self._names[name]}",
            function=qualified_name(function),
            inputs=[_input(argument, value, function) for argument, value in _flat(bound, function)],
            retry=resources.RetryPolicy(
                max_attempts=options.retries + 1, backoff_s=options.backoff_s, max_backoff_s=options.max_backoff_s
            ),
            timeout_s=options.timeout_s,
            after=options.after,
        )
        self.steps.append(node)
        self.functions.append(function)
        return Placeholder(resources.StepInput(step=node.id), f"the output of step {node.id}")


_tracer: ContextVar[Tracer | None] = ContextVar("headrace_tracer", default=None)


def trace(function: Callable[..., object], *, max_active_runs: int = 0) -> resources.PipelineDefinition:
    """The definition that a pipeline's function draws.

    Raises:
        TypeError: a call in it does not fit a step, or it uses what exists only when it runs.
        ValueError: it has no step, or its code can not be imported by a worker.
    """
    parameters = list(inspect.signature(function).parameters.values())
    stand_ins = {
        each.name: Placeholder(resources.StepInput(parameter=each.name), f"parameter {each.name}")
        for each in parameters
    }
    with _tracing() as tracer:
        function(**stand_ins)
    if not tracer.steps:
        raise ValueError(f"{function.__qualname__} calls no step")
    functions = [function, *tracer.functions]
    return resources.PipelineDefinition(
        entrypoint=qualified_name(function),
        source_path=_source_path(functions),
        source_digest=_source_digest(functions),
        steps=tracer.steps,
        parameters=[_parameter(each, function) for each in parameters],
        description=inspect.getdoc(function) or "",
        max_active_runs=max_active_runs,
    )


def qualified_name(function: Callable[..., object]) -> str:
    """``package.module:function``, as a worker imports it. Raises ValueError when it can not."""
    if "<" in function.__qualname__:
        raise ValueError(f"{function.__qualname__} must be defined at the top of a module, for workers to import it")
    return f"{_module_name(_module(function))}:{function.__qualname__}"


@contextmanager
def _tracing() -> Iterator[Tracer]:
    token = _tracer.set(tracer := Tracer())
    try:
        yield tracer
    finally:
        _tracer.reset(token)


def _flat(bound: inspect.BoundArguments, function: Callable[..., object]) -> Iterator[tuple[str, object]]:
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            yield from value.items()
        elif kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            raise TypeError(f"{function.__qualname__} is a step: its arguments travel by name, so {name} needs one")
        else:
            yield name, value


def _input(argument: str, value: object, function: Callable[..., object]) -> resources.StepInput:
    if isinstance(value, Placeholder):
        return value.as_input(argument)
    if isinstance(value, list | tuple) and any(isinstance(item, Placeholder) for item in cast("list[object]", value)):
        items = [_input("", item, function) for item in cast("list[object]", value)]
        return resources.StepInput(argument=argument, list=resources.StepInputList(items=items))
    try:
        return resources.StepInput(argument=argument, constant_json=encode(value))
    except TypeError as error:
        raise TypeError(f"argument {argument} of {function.__qualname__}: {error}") from error


def _parameter(parameter: inspect.Parameter, function: Callable[..., object]) -> resources.ParameterDefinition:
    kind = typing.get_type_hints(function).get(parameter.name)
    default = "" if parameter.default is inspect.Parameter.empty else encode(parameter.default)
    fits = kind in _TYPES and default != "null"
    return resources.ParameterDefinition(name=parameter.name, type=_TYPES[kind] if fits else "", default_json=default)


def _module(function: Callable[..., object]) -> ModuleType:
    return sys.modules[function.__module__]


def _module_name(module: ModuleType) -> str:
    if module.__name__ != "__main__":
        return module.__name__
    spec: Any = module.__spec__  # a ModuleSpec; None in a script
    return str(spec.name) if spec is not None else _file(module).stem


def _file(module: ModuleType) -> Path:
    if not module.__file__:
        raise ValueError(f"{module.__name__} has no file: define pipelines in a module, for workers to import it")
    return Path(module.__file__).resolve()


def _root(module: ModuleType) -> Path:
    """The folder on the import path that a module comes from."""
    file, depth = _file(module), _module_name(module).count(".")
    return file.parents[depth + (file.name == "__init__.py")]


def _source_path(functions: Sequence[Callable[..., object]]) -> str:
    """The folder that workers put on their import path; empty when all is installed."""
    installed = {Path(sysconfig.get_path(each)).resolve() for each in ("purelib", "platlib")}
    roots = {_root(_module(each)) for each in functions} - installed
    if len(roots) > 1:
        folders = ", ".join(sorted(map(str, roots)))
        raise ValueError(f"the pipeline and its steps lie in several folders ({folders}): install what they share")
    return str(next(iter(roots), ""))


def _source_digest(functions: Sequence[Callable[..., object]]) -> str:
    digest = hashlib.sha256()
    for module in sorted({_module(each) for each in functions}, key=_module_name):
        content = _file(module).read_bytes()
        digest.update(f"{_module_name(module)} {len(content)}\n".encode() + content)
    return digest.hexdigest()
