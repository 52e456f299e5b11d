"""The object store: bytes by their content. minio is known here and nowhere else.

The store keeps bytes only: whoever refers to them keeps size and digest, and every read is verified. Keys are
``{project}/sha256/{first two}/{digest}``; a key's bytes never change, so writes need no condition.
"""

from headrace_kit.objects.memory import MemoryObjectStore
from headrace_kit.objects.s3 import S3ObjectStore
from headrace_kit.objects.store import (
    MAX_GET_BYTES,
    PRESIGN_TTL,
    ObjectCorrupt,
    ObjectStore,
    ObjectsUnavailable,
    Source,
    holds,
    object_key,
    object_ref,
    verified,
)

__all__ = [
    "MAX_GET_BYTES",
    "PRESIGN_TTL",
    "MemoryObjectStore",
    "ObjectCorrupt",
    "ObjectStore",
    "ObjectsUnavailable",
    "S3ObjectStore",
    "Source",
    "holds",
    "object_key",
    "object_ref",
    "verified",
]
