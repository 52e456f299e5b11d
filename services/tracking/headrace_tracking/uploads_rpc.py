"""Uploads and downloads of bytes over gRPC: every byte goes straight to the object store, by presigned URL."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

import grpc

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.service_pb2_grpc import TrackingServiceServicer
from headrace_kit.errors import FailedPrecondition, NotFound
from headrace_kit.objects import PRESIGN_TTL, ObjectStore, holds, object_key
from headrace_tracking import requests, uploads
from headrace_tracking.purging import Purger

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method


class UploadsRpc(TrackingServiceServicer):
    """Answers the calls on uploads.

    Args:
        objects: Where artifacts lie.
        purger: Told what is about to be referred to.
    """

    def __init__(self, objects: ObjectStore, purger: Purger) -> None:
        self._objects, self._purger = objects, purger

    async def PresignUpload(
        self, request: service.PresignUploadRequest, context: Context
    ) -> service.PresignUploadResponse:
        reference = _reference(requests.check_presign(request), request)
        await self._purger.keep(reference.uri)
        stored = await holds(self._objects, reference)  # what is damaged there may be uploaded again
        url = "" if stored else self._objects.presign_put(reference)
        response = service.PresignUploadResponse(url=url, object=reference)
        response.expire_time.FromDatetime(datetime.now(UTC) + PRESIGN_TTL)
        return response

    async def BeginUpload(self, request: service.BeginUploadRequest, context: Context) -> service.BeginUploadResponse:
        reference = _reference(requests.check_begin_upload(request), request)
        response = service.BeginUploadResponse(object=reference)
        response.expire_time.FromDatetime(datetime.now(UTC) + PRESIGN_TTL)
        await self._purger.keep(reference.uri)
        if await holds(self._objects, reference):
            return response
        upload, held = request.upload_id, await self._held(reference, request.upload_id)
        if held is None:
            upload, held = await self._objects.begin_upload(reference), {}
        response.upload_id, response.part_size_bytes = upload, uploads.part_size(request.size_bytes)
        missing = set(uploads.missing(request.size_bytes, held))

        def sign() -> None:  # there may be thousands
            for number in uploads.lengths(request.size_bytes):
                url = self._objects.presign_part(reference, upload, number) if number in missing else ""
                response.parts.add(number=number, url=url)

        await asyncio.to_thread(sign)
        return response

    async def CompleteUpload(
        self, request: service.CompleteUploadRequest, context: Context
    ) -> service.CompleteUploadResponse:
        reference = _reference(requests.check_complete_upload(request), request)
        await self._purger.keep(reference.uri)
        held = await self._held(reference, request.upload_id)
        if held is None:  # completed before, or thrown away
            if await self._objects.size(reference) != request.size_bytes:
                raise NotFound("upload", request.upload_id[:200], field="upload_id")
        elif missing := uploads.missing(request.size_bytes, held):
            numbers = ", ".join(map(str, missing[:10]))
            raise FailedPrecondition(
                f"{len(missing)} parts are missing, such as {numbers}", field="upload_id", reason="PARTS_MISSING"
            )
        else:
            await self._objects.complete_upload(reference, request.upload_id)
        return service.CompleteUploadResponse(object=reference)

    async def AbortUpload(self, request: service.AbortUploadRequest, context: Context) -> service.AbortUploadResponse:
        project = requests.check_abort_upload(request)
        reference = ObjectRef(uri=object_key(project, request.sha256), sha256=request.sha256)
        await self._objects.abort_upload(reference, request.upload_id)
        return service.AbortUploadResponse()

    async def _held(self, reference: ObjectRef, upload: str) -> Mapping[int, int] | None:
        """Parts of an upload; None when there is no such upload."""
        if not upload:
            return None
        try:
            return await self._objects.uploaded_parts(reference, upload)
        except NotFound:
            return None


def _reference(
    project: str,
    request: service.PresignUploadRequest | service.BeginUploadRequest | service.CompleteUploadRequest,
) -> ObjectRef:
    return ObjectRef(
        uri=object_key(project, request.sha256),
        sha256=request.sha256,
        size_bytes=request.size_bytes,
        media_type="" if isinstance(request, service.CompleteUploadRequest) else request.media_type,
    )
