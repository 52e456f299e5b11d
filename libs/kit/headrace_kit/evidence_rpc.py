"""The half of ``AuditService`` that serves evidence: checkpoints, proofs, the tree, and what leaves are made of."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar

import grpc

from headrace.api.audit.v1 import resources_pb2 as resources
from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.service_pb2_grpc import AuditServiceServicer
from headrace.verifier import Checkpoint, leaf_hash
from headrace_kit.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.logmessages import entry_message
from headrace_kit.notary import Checkpoints, StoredLeaf, StoredTree, TreeBehind, read_leaves
from headrace_kit.rpc import parse_uuid
from headrace_kit.validate import require_range

T = TypeVar("T")
TREE_WAIT_S: Final = 3.0
"""How long a call waits for the notary to come as far as it asks for."""
MAX_POSITION: Final = 1 << 60
MAX_CHECKPOINTS: Final = 1000
DEFAULT_CHECKPOINTS: Final = 100
LEAVES: Final = 2000
"""Leaves read at once."""
LEAVES_AHEAD: Final = 2
"""How many such reads are under way while what was read before travels: each has a process of the database's own."""
LEAVES_BYTES: Final = 4 * 1024 * 1024
"""A message of leaves ends with the one that fills it so far."""
_POSITION: Final = "SELECT l.position FROM events e JOIN log_entries l USING (local_id) WHERE e.event_id = $1"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method


class EvidenceServicer(AuditServiceServicer):
    """Serves the evidence of one log."""

    def __init__(self, store: PostgresEventStore) -> None:
        self._log = store
        self._tree = StoredTree(store.database)
        self._checkpoints = Checkpoints(store.database, store.source)

    async def GetCheckpoint(
        self, request: service.GetCheckpointRequest, context: Context
    ) -> service.GetCheckpointResponse:
        require_range(request.size, field="size", least=0, most=MAX_POSITION)
        if request.size:
            found = await self._checkpoints.covering(request.size)
        else:
            found = await self._checkpoints.newest()
        if found is None:
            raise _not_signed(request.size)
        return service.GetCheckpointResponse(checkpoint=self._message(found))

    async def ListCheckpoints(
        self, request: service.ListCheckpointsRequest, context: Context
    ) -> service.ListCheckpointsResponse:
        require_range(request.from_size, field="from_size", least=0, most=MAX_POSITION)
        require_range(request.page_size, field="page_size", least=0, most=MAX_CHECKPOINTS)
        limit = request.page_size or DEFAULT_CHECKPOINTS
        found = await self._checkpoints.page(request.from_size, limit + 1)
        return service.ListCheckpointsResponse(
            checkpoints=[self._message(each) for each in found[:limit]],
            next_size=found[limit].size if len(found) > limit else 0,
        )

    async def ListVerifyingKeys(
        self, request: service.ListVerifyingKeysRequest, context: Context
    ) -> service.ListVerifyingKeysResponse:
        response = service.ListVerifyingKeysResponse()
        for key, first_used_at in await self._checkpoints.keys():
            response.keys.add(key=key).first_used_at.FromDatetime(first_used_at)
        return response

    async def ProveInclusion(
        self, request: service.ProveInclusionRequest, context: Context
    ) -> service.ProveInclusionResponse:
        leaf = await self._leaf(await self._position(request))
        checkpoint = await self._covering(leaf.position, request.size)
        if leaf_hash(leaf.content) != leaf.hash:
            raise FailedPrecondition(
                f"the entry at position {leaf.position} is not what was sequenced there: run `headrace log verify`",
                reason="LOG_DAMAGED",
            )
        path = await self._when_there(lambda: self._tree.inclusion(leaf.position - 1, checkpoint.size))
        [entry] = await self._log.read_log(leaf.position, 1)
        return service.ProveInclusionResponse(
            entry=entry_message(entry), leaf_bytes=leaf.content, path=path, checkpoint=self._message(checkpoint)
        )

    async def ProveConsistency(
        self, request: service.ProveConsistencyRequest, context: Context
    ) -> service.ProveConsistencyResponse:
        require_range(request.new_size, field="new_size", least=0, most=MAX_POSITION)
        new = request.new_size
        if new:
            await self._require_size(new, field="new_size")
        else:
            newest = await self._checkpoints.newest()
            new = newest.size if newest else 0
        old = request.old_size
        require_range(old, field="old_size", least=0, most=new)
        return service.ProveConsistencyResponse(
            old_size=old,
            new_size=new,
            old_root=await self._when_there(lambda: self._tree.root(old)),
            new_root=await self._when_there(lambda: self._tree.root(new)),
            path=await self._when_there(lambda: self._tree.consistency(old, new)),
        )

    async def GetTree(self, request: service.GetTreeRequest, context: Context) -> service.GetTreeResponse:
        require_range(request.size, field="size", least=0, most=MAX_POSITION)
        size = request.size or await self._log.head()
        await self._require_size(size, field="size")
        return service.GetTreeResponse(
            source=self._log.source,
            size=size,
            root=await self._when_there(lambda: self._tree.root(size)),
            peaks=await self._when_there(lambda: self._tree.peaks(size)),
        )

    async def ReadLeaves(
        self, request: service.ReadLeavesRequest, context: Context
    ) -> AsyncIterator[service.ReadLeavesResponse]:
        require_range(request.from_position, field="from_position", least=1, most=MAX_POSITION)
        require_range(request.to_position, field="to_position", least=0, most=MAX_POSITION)
        head = await self._log.head()
        last = min(request.to_position or head, head)
        firsts = iter(range(request.from_position, last + 1, LEAVES))

        def following() -> Iterator[asyncio.Future[Sequence[StoredLeaf]]]:
            return (asyncio.ensure_future(self._leaves(each, min(each + LEAVES - 1, last))) for each in firsts)

        ahead = deque(islice(following(), LEAVES_AHEAD))
        try:
            while ahead:
                leaves = await ahead.popleft()
                ahead.extend(islice(following(), 1))
                for part in _parts(leaves):
                    yield service.ReadLeavesResponse(
                        positions=[each.position for each in part],
                        leaf_bytes=[each.content for each in part],
                        leaves=b"".join([each.hash for each in part]),
                    )
        finally:
            for each in ahead:
                each.cancel()

    async def _leaves(self, first: int, last: int) -> Sequence[StoredLeaf]:
        return await read_leaves(self._log.database, self._log.source, first, last)

    async def _position(self, request: service.ProveInclusionRequest) -> int:
        require_range(request.size, field="size", least=0, most=MAX_POSITION)
        if request.HasField("position"):
            require_range(request.position, field="position", least=1, most=MAX_POSITION)
            return request.position
        if not request.HasField("event_id"):
            raise InvalidArgument("give an event id or a position", field="event_id")
        event_id = parse_uuid(request.event_id, field="event_id")
        position: int | None = await self._log.database.fetchval(_POSITION, event_id)
        if position is not None:
            return position
        if await self._log.find_event(event_id) is None:
            raise NotFound("event", request.event_id, field="event_id")
        raise Unavailable(f"event {event_id} has no position yet", reason="NOT_SIGNED_YET")

    async def _leaf(self, position: int) -> StoredLeaf:
        found = await self._leaves(position, position)
        if not found:
            raise NotFound("position", str(position), field="position")
        return found[0]

    async def _covering(self, position: int, size: int) -> Checkpoint:
        """The checkpoint of that size, or the newest, when it covers a position."""
        found = await (self._checkpoints.covering(size) if size else self._checkpoints.newest())
        if size and (found is None or found.size != size):
            raise NotFound("checkpoint", f"of size {size}", field="size")
        if size and size < position:
            raise InvalidArgument(f"a checkpoint of size {size} does not cover position {position}", field="size")
        if found is None or found.size < position:
            raise _not_signed(position)
        return found

    async def _require_size(self, size: int, *, field: str) -> None:
        head = await self._log.head()
        if size > head:
            raise InvalidArgument(f"the log has {head} entries, not {size}", field=field)

    async def _when_there(self, work: Callable[[], Awaitable[T]]) -> T:
        """What the tree answers, once the notary has stored what it needs."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + TREE_WAIT_S
        while True:
            try:
                return await work()
            except TreeBehind:
                if loop.time() >= give_up_at:
                    raise
                await asyncio.sleep(0.1)

    def _message(self, checkpoint: Checkpoint) -> resources.Checkpoint:
        message = resources.Checkpoint(
            source=self._log.source, size=checkpoint.size, root=checkpoint.root, note=checkpoint.note
        )
        message.made_at.FromDatetime(datetime.fromisoformat(checkpoint.made_at))
        return message


def _not_signed(position: int) -> Unavailable:
    what = f"no checkpoint covers position {position} yet" if position else "the log has no checkpoint yet"
    return Unavailable(what, reason="NOT_SIGNED_YET")


def _parts(leaves: Sequence[StoredLeaf]) -> list[Sequence[StoredLeaf]]:
    """Leaves in messages that are not too large."""
    parts: list[Sequence[StoredLeaf]] = []
    first, total = 0, 0
    for index, leaf in enumerate(leaves, 1):
        total += len(leaf.content)
        if total >= LEAVES_BYTES or index == len(leaves):
            parts.append(leaves[first:index])
            first, total = index, 0
    return parts
