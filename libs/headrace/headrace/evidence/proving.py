"""Fetches proofs that outlive the platform."""

from __future__ import annotations

import time
from typing import Final

import grpc

from headrace.api.audit.v1 import service_pb2 as service
from headrace.client import Client
from headrace.connection import SERVICES
from headrace.errors import FailedPrecondition, InvalidArgument, NotFound, error_details
from headrace.verifier import Checkpoint, NotProved, Proof, leaf_hash, root_from_inclusion

_POLL_S: Final = 0.5


def prove(client: Client, event: str, *, size: int = 0, wait_s: float = 30.0) -> Proof:
    """Proof that an event is in the log that a checkpoint speaks of, checked but for the signature.

    Args:
        client: The platform.
        event: Id of the event, or service and position, such as ``registry:57``.
        size: Size of the checkpoint; 0 for the newest.
        wait_s: How long to wait for a checkpoint that covers it: one is signed every few seconds.

    Raises:
        NotFound: No log has it, or there is no checkpoint of that size.
        FailedPrecondition: What the service gave is no proof.
        grpc.RpcError: A service can not be reached, or no checkpoint covers the event in time.
    """
    name, _, position = event.rpartition(":")
    if name:
        if name not in SERVICES or not (position.isascii() and position.isdigit() and int(position) > 0):
            raise InvalidArgument(f"give an event id, or service:position such as registry:57, not {event!r}")
        request, names = service.ProveInclusionRequest(position=int(position), size=size), [name]
    else:
        request = service.ProveInclusionRequest(event_id=event, size=size)
        names = [each for each in SERVICES if each in client.connection.addresses]
    give_up_at = time.monotonic() + wait_s
    for each in names:
        try:
            return _proof(_asked(client, each, request, give_up_at=give_up_at))
        except grpc.RpcError as error:
            if name or error.code() is not grpc.StatusCode.NOT_FOUND or error_details(error)[1].field == "size":
                raise
    raise NotFound(f"no log has an event {event}")


def _asked(
    client: Client, name: str, request: service.ProveInclusionRequest, *, give_up_at: float
) -> service.ProveInclusionResponse:
    while True:
        try:
            return client.log(name).ProveInclusion(request)
        except grpc.RpcError as error:
            if error_details(error)[1].reason != "NOT_SIGNED_YET" or time.monotonic() >= give_up_at:
                raise
        time.sleep(_POLL_S)


def _proof(answer: service.ProveInclusionResponse) -> Proof:
    try:
        proof = Proof(answer.leaf_bytes, list(answer.path), Checkpoint.parse(answer.checkpoint.note))
    except NotProved as error:
        raise FailedPrecondition(f"what the service gave is no proof: {error}", reason="NOT_PROVED") from error
    position, size = answer.entry.position, proof.checkpoint.size
    root = root_from_inclusion(position - 1, size, leaf_hash(proof.leaf), proof.path)
    if root != proof.checkpoint.root:
        raise FailedPrecondition(
            f"the log does not prove position {position}: run `headrace log verify`", reason="NOT_PROVED"
        )
    return proof
