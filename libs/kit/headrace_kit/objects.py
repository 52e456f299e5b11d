"""The object store: bytes by their content. minio is known here and nowhere else.

The store keeps bytes only: whoever refers to them keeps size and digest, and every read is verified. Keys are
``{project}/sha256/{first two}/{digest}``; a key's bytes never change, so writes need no condition.
"""

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import BytesIO
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace_kit.errors import KitError, NotFound, Unavailable

T = TypeVar("T")
PRESIGN_TTL: Final = timedelta(minutes=10)
_POOL: Final = 16


class ObjectCorrupt(KitError):
    """The store gave other bytes than the digest names. Never served, never retried."""

    default_reason = "OBJECT_CORRUPT"


def object_key(project: str, sha256: str) -> str:
    """Where bytes of a digest lie."""
    return f"{project}/sha256/{sha256[:2]}/{sha256}"


def object_ref(project: str, content: bytes, media_type: str) -> ObjectRef:
    """The reference to bytes."""
    sha256 = hashlib.sha256(content).hexdigest()
    return ObjectRef(uri=object_key(project, sha256), sha256=sha256, size_bytes=len(content), media_type=media_type)


class ObjectStore(Protocol):
    """Content-addressed bytes. Safe for many tasks of one loop."""

    async def put(self, project: str, content: bytes, media_type: str) -> ObjectRef:
        """Stores bytes; a repeat does no harm."""
        ...

    async def get(self, reference: ObjectRef) -> bytes:
        """The bytes, verified. Raises NotFound, ObjectCorrupt."""
        ...

    async def size(self, reference: ObjectRef) -> int | None:
        """Length of what lies there, or None when nothing does."""
        ...

    def presign_put(self, reference: ObjectRef) -> str:
        """A URL to PUT the bytes, good for ``PRESIGN_TTL``."""
        ...

    def presign_get(self, reference: ObjectRef) -> str:
        """A URL to GET the bytes, good for ``PRESIGN_TTL``."""
        ...


class S3ObjectStore:
    """``ObjectStore`` on S3.

    Args:
        endpoint: URL, such as ``http://127.0.0.1:9000``.
        access_key: Key id.
        secret_key: Secret.
        bucket: An existing bucket.
        region: Region, which presigned URLs name.
    """

    def __init__(
        self, endpoint: str, *, access_key: str, secret_key: str, bucket: str, region: str = "us-east-1"
    ) -> None:
        parts = urlsplit(endpoint)
        pool = urllib3.PoolManager(
            maxsize=_POOL,
            timeout=urllib3.Timeout(connect=5, read=60),
            retries=urllib3.Retry(total=2, backoff_factor=0.1),
        )
        # Any: minio ships no types for these arguments.
        self._client: Any = Minio(
            parts.netloc,
            access_key=access_key,
            secret_key=secret_key,
            secure=parts.scheme == "https",
            region=region,
            http_client=pool,
        )
        self._bucket = bucket
        self._threads = ThreadPoolExecutor(_POOL, thread_name_prefix="objects")

    async def put(self, project: str, content: bytes, media_type: str) -> ObjectRef:
        """As ``ObjectStore.put``."""
        reference = object_ref(project, content, media_type)
        kind = media_type or "application/octet-stream"
        await self._run(
            lambda: self._client.put_object(
                self._bucket, reference.uri, BytesIO(content), len(content), content_type=kind
            )
        )
        return reference

    async def get(self, reference: ObjectRef) -> bytes:
        """As ``ObjectStore.get``."""

        def read() -> bytes:
            response = self._client.get_object(self._bucket, reference.uri)
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()

        return verified(await self._run(read), reference)

    async def size(self, reference: ObjectRef) -> int | None:
        """As ``ObjectStore.size``."""
        try:
            return int(await self._run(lambda: self._client.stat_object(self._bucket, reference.uri).size))
        except NotFound:
            return None

    def presign_put(self, reference: ObjectRef) -> str:
        """As ``ObjectStore.presign_put``."""
        return str(self._client.presigned_put_object(self._bucket, reference.uri, expires=PRESIGN_TTL))

    def presign_get(self, reference: ObjectRef) -> str:
        """As ``ObjectStore.presign_get``."""
        return str(self._client.presigned_get_object(self._bucket, reference.uri, expires=PRESIGN_TTL))

    async def close(self) -> None:
        """Waits for what is under way."""
        await asyncio.to_thread(self._threads.shutdown, wait=True)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchBucket", "NoSuchObject"):
                raise NotFound("object", str(error.resource or "")) from error
            raise Unavailable(f"the object store refused: {error.code}", reason="OBJECTS_UNAVAILABLE") from error
        except (MinioException, InvalidResponseError, urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable("the object store can not be reached", reason="OBJECTS_UNAVAILABLE") from error


class MemoryObjectStore:
    """``ObjectStore`` in memory, for unit tests; its URLs lead nowhere."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def put(self, project: str, content: bytes, media_type: str) -> ObjectRef:
        """As ``ObjectStore.put``."""
        reference = object_ref(project, content, media_type)
        self.objects[reference.uri] = content
        return reference

    async def get(self, reference: ObjectRef) -> bytes:
        """As ``ObjectStore.get``."""
        if reference.uri not in self.objects:
            raise NotFound("object", reference.uri)
        return verified(self.objects[reference.uri], reference)

    async def size(self, reference: ObjectRef) -> int | None:
        """As ``ObjectStore.size``."""
        found = self.objects.get(reference.uri)
        return None if found is None else len(found)

    def presign_put(self, reference: ObjectRef) -> str:
        """As ``ObjectStore.presign_put``."""
        return f"memory://put/{reference.uri}"

    def presign_get(self, reference: ObjectRef) -> str:
        """As ``ObjectStore.presign_get``."""
        return f"memory://get/{reference.uri}"


def verified(content: bytes, reference: ObjectRef) -> bytes:
    """The bytes when they are those of the reference. Raises ObjectCorrupt."""
    if len(content) != reference.size_bytes or hashlib.sha256(content).hexdigest() != reference.sha256:
        raise ObjectCorrupt(f"{reference.uri} does not hold the bytes of its digest")
    return content
