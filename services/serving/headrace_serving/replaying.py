"""Requests that a champion answered, answered again by a candidate: what ``headrace models replay`` does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.registry.v1.resources_pb2 import Replay, ReplayedRange, Validation
from headrace.api.serving.v1 import service_pb2 as serving
from headrace.archive.reading import RemoteArchive
from headrace.client import Client
from headrace.errors import FailedPrecondition
from headrace.kafka.errors import TelemetryError
from headrace.kafka.reading import TopicReader
from headrace.kafka.shards import PREDICTIONS_TOPIC
from headrace_kit.errors import Unavailable
from headrace_kit.rpc import channel
from headrace_serving.answering import Differences, answer_again
from headrace_serving.batch import Progress
from headrace_serving.logged import LoggedBatch, digest_of, last_requests
from headrace_serving.scoring import load_version
from headrace_serving.versions import LoadedVersion

CHECK = "replay"
"""Name of the check under which a replay is recorded."""


async def run(
    client: Client,
    candidate: str,
    endpoint: str,
    *,
    last: int,
    allow_pickle: bool = False,
    progress: Progress = lambda _: None,
) -> Validation:
    """Answers again what an endpoint's champion answered last, and records what came of it with the candidate.

    The champion is the version that the endpoint's alias points to. The candidate is loaded here, as serving loads it:
    verified, a pickle in its sandbox. Nothing is sent to the endpoint.

    Args:
        client: The platform.
        candidate: Resource name of the version.
        endpoint: Resource name of the endpoint.
        last: Requests to answer again; fewer where the log has no more.
        allow_pickle: Consent to a pickle.
        progress: Told the number of requests answered so far.

    Raises:
        FailedPrecondition: ``NOTHING_TO_REPLAY``: the endpoint follows another model, its alias points nowhere or to
            the candidate, or no request of the champion was logged.
        InvalidArgument: What was logged is not what the candidate takes or answers.
        KitError: The candidate can not be loaded.
        Unavailable: Kafka does not answer.
    """
    champion = await asyncio.to_thread(_champion, client, candidate, endpoint)
    threads = ThreadPoolExecutor(1)
    calls = channel(client.connection.address("registry"), client.connection.token)
    try:
        loaded = await load_version(calls, candidate, threads, allow_pickle=allow_pickle)
        try:
            batches = await _read(client, endpoint, champion, last)
            if not batches:
                raise _nothing(f"no request that {champion} answered on {endpoint} is in the log")
            seen = await _answer(loaded, batches, progress)
        finally:
            loaded.retire()
    finally:
        await calls.close()
        threads.shutdown()
    return await asyncio.to_thread(_record, client, candidate, _replay(endpoint, champion, batches, seen))


def _champion(client: Client, candidate: str, endpoint: str) -> str:
    found = client.serving.GetEndpoint(serving.GetEndpointRequest(name=endpoint)).endpoint
    model = candidate.rpartition("/versions/")[0]
    if found.model != model:
        raise _nothing(f"{endpoint} answers with {found.model}, not with {model}")
    aliases = client.registry.GetModel(service.GetModelRequest(name=model)).model.aliases
    number = next((each.version for each in aliases if each.alias == found.alias), 0)
    champion = f"{model}/versions/{number}"
    if not number or champion == candidate:
        raise _nothing(f"{found.alias} points to {'the candidate itself' if number else 'no version'}")
    return champion


async def _read(client: Client, endpoint: str, version: str, most: int) -> list[LoggedBatch]:
    try:
        async with TopicReader(client.connection.kafka_bootstrap, PREDICTIONS_TOPIC) as reader:
            return await last_requests(RemoteArchive(client), reader, endpoint=endpoint, version=version, most=most)
    except TelemetryError as error:
        raise Unavailable(f"the log of predictions can not be read: {error}", reason=error.reason) from error


async def _answer(version: LoadedVersion, batches: Sequence[LoggedBatch], progress: Progress) -> Differences:
    seen = Differences()
    for each in batches:
        await answer_again(version, each, seen)
        progress(seen.requests)
    return seen


def _replay(endpoint: str, champion: str, batches: Sequence[LoggedBatch], seen: Differences) -> Replay:
    ranges: dict[int, ReplayedRange] = {}
    for each in batches:  # by partition and offset
        found = ranges.setdefault(each.partition, ReplayedRange(partition=each.partition, first_offset=each.offset))
        found.last_offset, found.requests = each.offset, found.requests + len(each.places)
    return Replay(
        endpoint=endpoint,
        champion=int(champion.rpartition("/")[2]),
        requests=seen.requests,
        rows=seen.rows,
        errors=seen.errors,
        max_difference=seen.greatest,
        mean_difference=seen.mean,
        changed_share=seen.changed_share,
        digest=digest_of(batches),
        ranges=ranges.values(),
    )


def _record(client: Client, candidate: str, replay: Replay) -> Validation:
    request = service.RecordValidationRequest(
        command_id=str(uuid4()),
        version=candidate,
        check=CHECK,
        passed=not replay.errors,
        detail=f"answered {replay.requests} requests again as version {replay.champion} had, {replay.errors} failed",
        replay=replay,
    )
    return client.registry.RecordValidation(request).version.validations[-1]


def _nothing(why: str) -> FailedPrecondition:
    return FailedPrecondition(f"there is nothing to replay: {why}", reason="NOTHING_TO_REPLAY")
