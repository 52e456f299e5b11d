"""Lineage for those who ask the gateway: the walk of ``headrace.lineage``, driven without blocking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from headrace.errors import InvalidArgument as NoEntity
from headrace.errors import NotFound as NoneSuch
from headrace.lineage import Lineage, Question, trace
from headrace.lineage.walking import AWAY, DEPTH, GONE, MOST, not_found
from headrace_gateway.platform import ServiceMissingError, Services
from headrace_kit.errors import InvalidArgument, NotFound

WITHIN_S: Final = 3.0
"""How long one answer is waited for."""
Metadata = Sequence[tuple[str, str]]


async def walked(
    services: Services,
    entity: str,
    *,
    direction: str = "both",
    depth: int = DEPTH,
    most: int = MOST,
    metadata: Metadata = (),
) -> Lineage:
    """The lineage of an entity; arguments as of ``headrace.lineage.trace``, ``metadata`` goes with each call.

    Raises:
        InvalidArgument: An argument is none.
        NotFound: There is no such entity.
        grpc.aio.AioRpcError: A service refuses.
    """
    lacking: dict[str, None] = {}
    walk = trace(entity, direction=direction, depth=depth, most=most)
    answer: Message | None = None
    try:
        question = next(walk)
        while True:
            answer = await _answer(services, question, metadata, lacking)
            question = walk.send(answer)
    except StopIteration as end:
        found: Lineage = end.value
        return replace(found, lacking=tuple(lacking))
    except NoEntity as error:
        raise InvalidArgument(error.message) from None
    except NoneSuch as error:
        raise NotFound(not_found(error, tuple(lacking)).message) from None


async def _answer(
    services: Services, question: Question, metadata: Metadata, lacking: dict[str, None]
) -> Message | None:
    try:
        if question.service not in services.names:
            raise ServiceMissingError(question.service)
        stub: Any = services.log(question.service) if question.log else getattr(services, question.service)
        found: Message = await getattr(stub, question.method)(question.request, metadata=metadata, timeout=WITHIN_S)
    except ServiceMissingError:
        lacking[question.service] = None
        return None
    except grpc.aio.AioRpcError as error:
        if error.code() in AWAY:
            lacking[question.service] = None
        elif error.code() not in GONE:
            raise
        return None
    return found
