"""What travels between this process and the child that holds a pickle: arrays and texts, never objects.

A frame is its length (8 bytes, little-endian) and as many bytes. A message is a frame of JSON and one frame of ``.npy``
for each of its arrays; arrays of objects are refused both ways.
"""

import io
from collections.abc import Mapping
from typing import IO, Any, Final

import numpy as np
import orjson

from headrace_serving.tensors import Array

MAX_FRAME: Final = 4 << 30
Document = dict[str, Any]  # what JSON holds


def write_frame(stream: IO[bytes], content: bytes) -> None:
    """Writes one frame and flushes."""
    stream.write(len(content).to_bytes(8, "little") + content)
    stream.flush()


def read_frame(stream: IO[bytes]) -> bytes:
    """One frame. Raises EOFError at the end, ValueError when it is too long."""
    size = int.from_bytes(_exactly(stream, 8), "little")
    if size > MAX_FRAME:
        raise ValueError(f"a frame of {size} bytes")
    return _exactly(stream, size)


def write_message(stream: IO[bytes], document: Document, arrays: Mapping[str, Array]) -> None:
    """Writes a message."""
    write_frame(stream, orjson.dumps({**document, "arrays": list(arrays)}))
    for array in arrays.values():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_frame(stream, buffer.getvalue())


def read_message(stream: IO[bytes]) -> tuple[Document, dict[str, Array]]:
    """A message. Raises EOFError at the end, ValueError for anything else than one."""
    document = orjson.loads(read_frame(stream))
    names = document.pop("arrays")
    return document, {name: np.load(io.BytesIO(read_frame(stream)), allow_pickle=False) for name in names}


def _exactly(stream: IO[bytes], size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = stream.read(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
