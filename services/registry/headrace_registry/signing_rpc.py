"""Signatures of packages over gRPC: verified here once, before they are recorded."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import grpc

from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.registry.v1.resources_pb2 import PackageSignature, Version
from headrace.api.registry.v1.service_pb2_grpc import SigningServiceServicer
from headrace.packages.signatures import MAX_BUNDLE_BYTES, MEDIA_TYPE, Bundle, PublicKey, SignatureInvalid
from headrace_kit.errors import InvalidArgument
from headrace_kit.eventstore import EventStore
from headrace_kit.names import MODEL as MODEL_NAME
from headrace_kit.names import require_text
from headrace_kit.objects import ObjectStore
from headrace_kit.rpc import command_context, current_principal
from headrace_kit.validate import require_sha256
from headrace_registry import domain, packages, requests, signing
from headrace_registry.store import MODEL
from headrace_registry.upkeep import existing

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method


class SigningServicer(SigningServiceServicer):
    """Answers calls about signatures and their keys.

    Args:
        store: The models' streams.
        objects: Where packages and signatures lie.
    """

    def __init__(self, store: EventStore, objects: ObjectStore) -> None:
        self._store, self._objects = store, objects

    async def TrustKey(self, request: service.TrustKeyRequest, context: Context) -> service.TrustKeyResponse:
        MODEL_NAME.parse(request.model, field="model")
        require_text(request.public_key, field="public_key", most=2000, lines=True)
        requests.require_reason(request.reason)
        command, roles = command_context(request.command_id), current_principal().roles
        try:
            key = PublicKey(request.public_key)
        except SignatureInvalid as error:
            raise InvalidArgument(str(error), field="public_key") from error
        return await self._store.execute(
            MODEL,
            request.model,
            context=command,
            request=request,
            decide=lambda state: signing.decide_trust(state, request, command, key=key, roles=roles),
            respond=lambda model: service.TrustKeyResponse(key=signing.key_of(model, key.id)),
        )

    async def WithdrawKey(self, request: service.WithdrawKeyRequest, context: Context) -> service.WithdrawKeyResponse:
        MODEL_NAME.parse(request.model, field="model")
        require_sha256(request.key_id, field="key_id")
        requests.require_reason(request.reason)
        command, roles = command_context(request.command_id), current_principal().roles
        return await self._store.execute(
            MODEL,
            request.model,
            context=command,
            request=request,
            decide=lambda state: signing.decide_withdraw(state, request, command, roles=roles),
            respond=lambda model: service.WithdrawKeyResponse(key=signing.key_of(model, request.key_id)),
        )

    async def SignVersion(self, request: service.SignVersionRequest, context: Context) -> service.SignVersionResponse:
        name = requests.model_of(request.version, field="version")
        command = command_context(request.command_id)
        if not 0 < len(request.bundle) <= MAX_BUNDLE_BYTES:
            raise InvalidArgument(f"give 1 to {MAX_BUNDLE_BYTES} bytes", field="bundle")
        signed = PackageSignature(key_id=await self._verified(name, request))
        # Whoever dies between here and the event leaves bytes that a repeat finds again.
        signed.bundle.CopyFrom(await self._objects.put(name.split("/")[1], request.bundle, MEDIA_TYPE))
        return await self._store.execute(
            MODEL,
            name,
            context=command,
            request=request,
            decide=lambda state: signing.decide_signed(
                existing(state, name), domain.version_of(state, request.version), signed, command
            ),
            respond=lambda model: _answer(domain.version_of(model, request.version), signed.key_id),
        )

    async def _verified(self, name: str, request: service.SignVersionRequest) -> str:
        """The key of a signature that is of exactly this package; it may have been withdrawn.

        Raises:
            InvalidArgument: It is none of this package.
            FailedPrecondition: The key was never trusted for the model.
        """
        loaded = await self._store.load(MODEL, name)
        model = existing(loaded[0] if loaded else None, name)
        version = domain.version_of(model, request.version)
        try:
            bundle = await asyncio.to_thread(Bundle, request.bundle)
            key = signing.find_key(model, bundle.key_id) or signing.require_trusted_key(model, bundle.key_id)
            files = await packages.digests(self._objects, version)
            await asyncio.to_thread(bundle.verify, PublicKey(key.public_key), files)
        except SignatureInvalid as error:
            raise InvalidArgument(str(error), field="bundle", reason="PACKAGE_SIGNATURE_INVALID") from error
        return key.id


def _answer(version: Version, key: str) -> service.SignVersionResponse:
    kept = next(each for each in version.package_signatures if each.key_id == key)
    return service.SignVersionResponse(version=version, signature=kept)
