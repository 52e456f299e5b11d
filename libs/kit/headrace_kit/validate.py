"""Checks of requests that every service makes the same way. All raise InvalidArgument with the path of the field."""

import math
import re
from collections.abc import Mapping, Sequence, Sized
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.common.v1 import resources_pb2 as common
from headrace_kit.errors import InvalidArgument
from headrace_kit.names import require_text

SHA256: Final = re.compile(r"[0-9a-f]{64}")
_EARLIEST, _LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_EARLIEST_US, _LATEST_US = (int(moment.timestamp()) * 1_000_000 for moment in (_EARLIEST, _LATEST))
MAX_RANK: Final = 8
MAX_TENSORS: Final = 1024
MAX_COLUMNS: Final = 4096
MAX_OBJECT_BYTES: Final = 1 << 40


def require_size(values: Sized, *, field: str, least: int = 0, most: int) -> None:
    """A list or map within its limits."""
    if not least <= len(values) <= most:
        bounds = f"{least} to {most}" if least else f"at most {most}"
        raise InvalidArgument(f"give {bounds} entries; these are {len(values)}", field=field)


def require_range(value: float, *, field: str, least: float, most: float) -> None:
    """A number within its limits; NaN is not."""
    if not least <= value <= most:
        raise InvalidArgument(f"give {least} to {most}, not {value}", field=field)


def require_enum(value: int, *, field: str, names: Mapping[int, str]) -> None:
    """A given, known value of an enum; ``names`` are those allowed."""
    if value not in names:
        raise InvalidArgument(f"give one of {', '.join(names.values())}", field=field)


def require_time(stamp: Timestamp, *, field: str) -> datetime:
    """A moment between 1900 and 2200."""
    try:
        moment = stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or not _EARLIEST <= moment <= _LATEST or not 0 <= stamp.nanos < 1_000_000_000:
        raise InvalidArgument("give a time between 1900 and 2200", field=field)
    return moment


def require_time_us(time_us: int, *, field: str) -> None:
    """Microseconds since 1970 UTC, within the same bounds as ``require_time``."""
    if not _EARLIEST_US <= time_us <= _LATEST_US:
        raise InvalidArgument("give times between 1900 and 2200, in microseconds since 1970", field=field)


def require_texts(values: Mapping[str, str], *, field: str, most: int, key: int = 250, value: int = 8000) -> None:
    """A map of texts within its limits."""
    require_size(values, field=field, most=most)
    for name, text in values.items():
        _require_key(name, field=field, most=key)
        require_text(text, field=f"{field}[{name!r}]", least=0, most=value, lines=True)


def _require_key(name: str, *, field: str, most: int) -> None:
    try:
        require_text(name, field=field, most=most)
    except InvalidArgument as error:
        raise InvalidArgument(f"a key: {error.message}", field=field) from None


def require_numbers(values: Sequence[common.NamedValue], *, field: str, most: int) -> None:
    """Named finite numbers, each name once."""
    require_size(values, field=field, most=most)
    seen: set[str] = set()
    for index, each in enumerate(values):
        require_text(each.name, field=f"{field}[{index}].name", most=250)
        if not math.isfinite(each.value):
            raise InvalidArgument(f"{each.name} must be a finite number", field=f"{field}[{index}].value")
        if each.name in seen:
            raise InvalidArgument(f"{each.name} is there twice", field=f"{field}[{index}].name")
        seen.add(each.name)


def require_sha256(text: str, *, field: str) -> None:
    """A SHA-256 as 64 lower-case hex digits."""
    if not SHA256.fullmatch(text):
        raise InvalidArgument("give a SHA-256 as 64 lower-case hex digits", field=field)


def require_object(reference: common.ObjectRef, *, project: str, field: str) -> None:
    """A reference to bytes of the project."""
    require_sha256(reference.sha256, field=f"{field}.sha256")
    wanted = f"{project}/sha256/{reference.sha256[:2]}/{reference.sha256}"
    if reference.uri != wanted:
        raise InvalidArgument(f"the bytes of this digest are at {wanted}", field=f"{field}.uri")
    require_range(reference.size_bytes, field=f"{field}.size_bytes", least=0, most=MAX_OBJECT_BYTES)
    require_text(reference.media_type, field=f"{field}.media_type", least=0, most=200)


def require_dataset(dataset: common.DatasetVersion, *, field: str) -> None:
    """A dataset version with a name and a digest."""
    require_text(dataset.name, field=f"{field}.name", most=250)
    require_text(dataset.digest, field=f"{field}.digest", most=200)
    require_text(dataset.source, field=f"{field}.source", least=0, most=65_535, lines=True)
    require_text(dataset.source_type, field=f"{field}.source_type", least=0, most=100)
    require_text(dataset.schema, field=f"{field}.schema", least=0, most=1_000_000, lines=True)
    require_text(dataset.profile, field=f"{field}.profile", least=0, most=1_000_000, lines=True)
    require_text(dataset.context, field=f"{field}.context", least=0, most=100)
    require_text(dataset.description, field=f"{field}.description", least=0, most=2000, lines=True)
    require_range(dataset.rows, field=f"{field}.rows", least=0, most=1 << 60)
    require_size(dataset.columns, field=f"{field}.columns", most=MAX_COLUMNS)
    for index, column in enumerate(dataset.columns):
        require_text(column.name, field=f"{field}.columns[{index}].name", most=250)
        require_text(column.type, field=f"{field}.columns[{index}].type", least=0, most=100)


def require_signature(signature: common.Signature, *, field: str) -> None:
    """A signature with at least one input and one output, each named once."""
    _require_tensors(signature.inputs, field=f"{field}.inputs")
    _require_tensors(signature.outputs, field=f"{field}.outputs")


def _require_tensors(tensors: Sequence[common.TensorSpec], *, field: str) -> None:
    require_size(tensors, field=field, least=1, most=MAX_TENSORS)
    known = {int(number): name for name, number in common.DataType.items() if number}
    seen: set[str] = set()
    for index, tensor in enumerate(tensors):
        at = f"{field}[{index}]"
        require_text(tensor.name, field=f"{at}.name", most=250)
        if tensor.name in seen:
            raise InvalidArgument(f"{tensor.name} is there twice", field=f"{at}.name")
        seen.add(tensor.name)
        require_enum(tensor.datatype, field=f"{at}.datatype", names=known)
        require_size(tensor.shape, field=f"{at}.shape", most=MAX_RANK)
        for place, dimension in enumerate(tensor.shape):
            require_range(dimension, field=f"{at}.shape[{place}]", least=-1, most=1 << 40)
        require_size(tensor.columns, field=f"{at}.columns", most=MAX_COLUMNS)
        for place, column in enumerate(tensor.columns):
            require_text(column, field=f"{at}.columns[{place}]", most=250)
