"""The object store on S3, by minio's blocking client in a pool of threads."""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Final, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import urllib3

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace_kit import metrics
from headrace_kit.errors import InvalidArgument, NotFound
from headrace_kit.lean import standing_in
from headrace_kit.objects.store import (
    MAX_GET_BYTES,
    PRESIGN_TTL,
    ObjectsUnavailable,
    Source,
    object_key,
    require_place,
    require_project,
    require_same,
    staged_place,
)

_no_admin: Any = ModuleType("minio.minioadmin")
_no_admin.MinioAdmin = None
with standing_in("minio.minioadmin", _no_admin):
    from minio import Minio
    from minio.commonconfig import CopySource
    from minio.datatypes import Part
    from minio.error import InvalidResponseError, MinioException, S3Error

T = TypeVar("T")
_THREADS: Final = 16
_CHUNK: Final = 1 << 20
_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
_MISSING: Final = ("NoSuchKey", "NoSuchObject", "NoSuchUpload", "ResourceNotFound")


class S3ObjectStore:
    """``ObjectStore`` on S3.

    Args:
        endpoint: URL, such as ``http://127.0.0.1:9000``.
        access_key: Key id.
        secret_key: Secret.
        bucket: An existing bucket.
        region: Region, which presigned URLs name.
        scratch: Where chunks are gathered before they are sent; the system's folder by default.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        access_key: str,
        secret_key: str,
        bucket: str,
        region: str = "us-east-1",
        scratch: Path | None = None,
    ) -> None:
        parts = urlsplit(endpoint)
        pool = urllib3.PoolManager(
            maxsize=_THREADS,
            timeout=urllib3.Timeout(connect=3, read=30),
            # Every request may be repeated: a key's bytes are always the same.
            retries=urllib3.Retry(total=2, backoff_factor=0.1, status_forcelist=(502, 503, 504), allowed_methods=None),
        )
        # Any: minio's own types leave most results open.
        self._client: Any = Minio(
            parts.netloc,
            access_key=access_key,
            secret_key=secret_key,
            secure=parts.scheme == "https",
            region=region,
            http_client=pool,
        )
        self._bucket = bucket
        self._scratch = scratch
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="objects")

    async def put(self, project: str, content: Source, media_type: str = "") -> ObjectRef:
        """As ``ObjectStore.put``. What lies there already, whole, is not sent again."""
        require_project(project)
        if isinstance(content, bytes):
            return await self._run("put", lambda: self._put(project, BytesIO(content), media_type))
        if isinstance(content, Path):
            return await self._run("put", lambda: self._put_file(project, content, media_type))
        # The digest is the key, so it must be known before anything is sent.
        with tempfile.TemporaryFile(dir=self._scratch) as gathered:
            async for chunk in content:
                await asyncio.to_thread(gathered.write, chunk)
            gathered.seek(0)
            return await self._run("put", lambda: self._put(project, gathered, media_type))

    async def get(self, reference: ObjectRef) -> bytes:
        """As ``ObjectStore.get``."""
        require_place(reference)
        if reference.size_bytes > MAX_GET_BYTES:
            raise InvalidArgument(f"over {MAX_GET_BYTES} bytes: download it to a file", field="size_bytes")
        target = BytesIO()
        await self._run("get", lambda: self._read(reference, target))
        return target.getvalue()

    async def download(self, reference: ObjectRef, path: Path) -> None:
        """As ``ObjectStore.download``."""
        require_place(reference)
        await self._run("get", lambda: self._download(reference, path))

    async def verify(self, reference: ObjectRef) -> None:
        """As ``ObjectStore.verify``."""
        require_place(reference)
        await self._run("verify", lambda: self._read(reference, None))

    async def size(self, reference: ObjectRef) -> int | None:
        """As ``ObjectStore.size``."""
        require_place(reference)
        found = await self._run("size", lambda: self._stat(reference.uri))
        return None if found is None else int(found.size)

    async def delete(self, reference: ObjectRef) -> None:
        """As ``ObjectStore.delete``."""
        require_place(reference)
        await self._run("delete", lambda: self._client.remove_object(self._bucket, reference.uri))

    def presign_put(self, reference: ObjectRef, *, ttl: timedelta = PRESIGN_TTL) -> str:
        """As ``ObjectStore.presign_put``."""
        return str(self._client.presigned_put_object(self._bucket, require_place(reference).uri, expires=ttl))

    def presign_get(self, reference: ObjectRef, *, ttl: timedelta = PRESIGN_TTL) -> str:
        """As ``ObjectStore.presign_get``."""
        return str(self._client.presigned_get_object(self._bucket, require_place(reference).uri, expires=ttl))

    async def begin_upload(self, reference: ObjectRef) -> str:
        """As ``ObjectStore.begin_upload``."""
        require_place(reference)
        headers = {"Content-Type": reference.media_type or "application/octet-stream"}
        return str(
            await self._run(
                "begin",
                lambda: self._client._create_multipart_upload(self._bucket, reference.uri, headers),  # noqa: SLF001 - minio has no public name for single steps
            )
        )

    async def uploaded_parts(self, reference: ObjectRef, upload: str) -> dict[int, int]:
        """As ``ObjectStore.uploaded_parts``."""
        require_place(reference)
        found = await self._run("parts", lambda: self._parts(reference.uri, upload))
        return {int(each.part_number): int(each.size or 0) for each in found}

    def presign_part(self, reference: ObjectRef, upload: str, number: int, *, ttl: timedelta = PRESIGN_TTL) -> str:
        """As ``ObjectStore.presign_part``."""
        place, query = require_place(reference).uri, {"uploadId": upload, "partNumber": str(number)}
        return str(self._client.get_presigned_url("PUT", self._bucket, place, expires=ttl, extra_query_params=query))

    async def complete_upload(self, reference: ObjectRef, upload: str) -> None:
        """As ``ObjectStore.complete_upload``."""
        require_place(reference)

        def complete() -> None:
            parts = self._parts(reference.uri, upload)
            self._client._complete_multipart_upload(self._bucket, reference.uri, upload, parts)  # noqa: SLF001 - as above

        await self._run("complete", complete)

    async def abort_upload(self, reference: ObjectRef, upload: str) -> None:
        """As ``ObjectStore.abort_upload``."""
        require_place(reference)
        with suppress(NotFound):
            await self._run(
                "abort",
                lambda: self._client._abort_multipart_upload(self._bucket, reference.uri, upload),  # noqa: SLF001 - as above
            )

    async def begin_staged(self, project: str) -> str:
        """As ``ObjectStore.begin_staged``."""
        name = uuid4().hex
        key, _ = staged_place(project, f"{name}.new")
        upload = await self._run("begin", lambda: self._client._create_multipart_upload(self._bucket, key, {}))  # noqa: SLF001 - as above
        return f"{name}.{upload}"

    def presign_staged(self, project: str, staged: str, number: int, *, ttl: timedelta = PRESIGN_TTL) -> str:
        """As ``ObjectStore.presign_staged``."""
        key, upload = staged_place(project, staged)
        query = {"uploadId": upload, "partNumber": str(number)}
        return str(self._client.get_presigned_url("PUT", self._bucket, key, expires=ttl, extra_query_params=query))

    async def adopt_staged(self, project: str, staged: str, media_type: str = "") -> ObjectRef:
        """As ``ObjectStore.adopt_staged``. The bytes are read once, and moved within the store."""
        key, upload = staged_place(project, staged)

        def adopt() -> ObjectRef:
            parts = self._parts(key, upload)
            self._client._complete_multipart_upload(self._bucket, key, upload, parts)  # noqa: SLF001 - as above
            sha256, size = hashlib.sha256(), 0
            for chunk in self._chunks(key):
                sha256.update(chunk)
                size += len(chunk)
            digest = sha256.hexdigest()
            place = object_key(project, digest)
            self._client.copy_object(self._bucket, place, CopySource(self._bucket, key))
            self._client.remove_object(self._bucket, key)
            return ObjectRef(uri=place, sha256=digest, size_bytes=size, media_type=media_type)

        return await self._run("adopt", adopt)

    async def abort_staged(self, project: str, staged: str) -> None:
        """As ``ObjectStore.abort_staged``."""
        key, upload = staged_place(project, staged)
        with suppress(NotFound):
            await self._run(
                "abort",
                lambda: self._client._abort_multipart_upload(self._bucket, key, upload),  # noqa: SLF001 - as above
            )

    async def close(self) -> None:
        """As ``ObjectStore.close``."""
        await asyncio.to_thread(self._threads.shutdown, wait=True)

    async def _run(self, operation: str, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: _call(work))
        finally:
            metrics.OBJECT_SECONDS.labels(operation).observe(time.perf_counter() - began)

    def _put_file(self, project: str, path: Path, media_type: str) -> ObjectRef:
        with path.open("rb") as file:
            return self._put(project, file, media_type)

    def _put(self, project: str, source: BinaryIO, media_type: str) -> ObjectRef:
        sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        while chunk := source.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
        digest = sha256.hexdigest()
        key = object_key(project, digest)
        there = self._stat(key)
        # A store whose ETag is not the MD5 of the whole gets the bytes once more: no harm.
        if there is None or there.size != size or str(there.etag).strip('"') != md5.hexdigest():
            source.seek(0)
            kind = media_type or "application/octet-stream"
            self._client.put_object(self._bucket, key, source, size, content_type=kind)
            metrics.OBJECT_BYTES.labels("put").inc(size)
        return ObjectRef(uri=key, sha256=digest, size_bytes=size, media_type=media_type)

    def _download(self, reference: ObjectRef, path: Path) -> None:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        partial = Path(name)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
                self._read(reference, file)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _read(self, reference: ObjectRef, target: BinaryIO | None) -> None:
        sha256, size = hashlib.sha256(), 0
        with closing(self._chunks(reference.uri)) as chunks:
            for chunk in chunks:
                sha256.update(chunk)
                size += len(chunk)
                if size > reference.size_bytes:  # no more of it needs to be read
                    break
                if target is not None:
                    target.write(chunk)
        metrics.OBJECT_BYTES.labels("get").inc(size)
        require_same(reference, size, sha256.hexdigest())

    def _chunks(self, key: str) -> Generator[bytes, None, None]:
        response = self._client.get_object(self._bucket, key)
        try:
            yield from response.stream(_CHUNK)
        finally:
            response.close()
            response.release_conn()

    def _parts(self, key: str, upload: str) -> list[Part]:
        found: list[Part] = []
        marker = None
        while True:
            page = self._client._list_parts(  # noqa: SLF001 - as above
                self._bucket, key, upload, part_number_marker=marker
            )
            found.extend(page.parts)
            marker = str(page.next_part_number_marker or "")
            if not page.is_truncated or not marker:
                return found

    def _stat(self, key: str) -> Any:  # noqa: ANN401 - Any: minio's description of an object, None when there is none
        try:
            with _translated():
                return self._client.stat_object(self._bucket, key)
        except NotFound:
            return None


def _call(work: Callable[[], T]) -> T:
    with _translated():
        return work()


@contextmanager
def _translated() -> Iterator[None]:
    """Turns what minio and urllib3 raise into the kit's errors."""
    try:
        yield
    except (S3Error, InvalidResponseError) as error:
        raise _refused(*_refusal(_first(error))) from error
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        raise ObjectsUnavailable("the object store can not be reached") from error
    except ConnectionError as error:
        raise ObjectsUnavailable("the object store can not be reached") from error


def _first(error: BaseException) -> BaseException:
    """What was refused first: minio aborts an upload that failed, and when that fails too it raises the later error."""
    earlier = error.__context__
    return _first(earlier) if isinstance(earlier, S3Error | InvalidResponseError) else error


def _refusal(error: BaseException) -> tuple[str, str]:
    """Code and resource of a refusal."""
    if isinstance(error, S3Error):
        return str(error.code), str(error.resource or "")
    # rclone's errors name a charset in their content type, which minio takes for something other than XML.
    found = _CODE.search(str(error))
    return (found[1] if found else "InvalidResponse"), ""


def _refused(code: str, resource: str) -> NotFound | ObjectsUnavailable:
    if code in _MISSING:
        return NotFound("object", resource) if resource else NotFound("the object does not exist")
    return ObjectsUnavailable(f"the object store refused: {code}", metadata={"code": code})
