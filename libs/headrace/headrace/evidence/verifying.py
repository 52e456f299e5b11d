"""Verifies a service's log against what was signed of it, and against what was kept elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

import grpc

from headrace.api.audit.v1 import service_pb2 as service
from headrace.client import Client
from headrace.errors import FailedPrecondition, error_details
from headrace.evidence.keeping import PLATFORM, Kept
from headrace.evidence.scan import LogScan, Problem, in_order
from headrace.export.envelope import rfc3339
from headrace.export.ranges import LogRange
from headrace.merkle import Range
from headrace.verifier import CanNotCheck, Checkpoint, Key, NotProved, consistent

if TYPE_CHECKING:
    from headrace.archive.verifying import RangeReport

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it.

    Attributes:
        service: Whose log.
        source: The log's own name.
        first: First position that was looked at, which may lie before the one that was asked for.
        last: The last one; below the first where there was none.
        entries: How many entries were recomputed.
        checkpoints: How many signed checkpoints the log was found to agree with.
        signed_to: The last position that such a checkpoint covers.
        root: Merkle root over positions 1 to ``last``, hex; empty where entries are missing.
        seconds: How long it took.
        problems: What is wrong, in the order of ``in_order``; empty for a sound log.
        archived_ranges: How many ranges of the telemetry archive were held to the log.
    """

    service: str
    source: str
    first: int
    last: int
    entries: int
    checkpoints: int
    signed_to: int
    root: str
    seconds: float
    problems: tuple[Problem, ...]
    archived_ranges: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def first_bad(self) -> int:
        """The first position that is bad, or may be; 0 where no entry is in doubt."""
        return next((each.first for each in self.problems if each.first), 0)

    def with_archive(self, reports: Sequence[RangeReport], *, seconds: float) -> Verdict:
        """The same, with what came of the archive that the log vouches for."""
        found = [Problem("archive", 0, 0, f"{report.name}: {fault}") for report in reports for fault in report.faults]
        return replace(
            self,
            problems=(*self.problems, *found),
            archived_ranges=len(reports),
            seconds=self.seconds + seconds,
        )

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self), "sound": self.sound, "first_bad": self.first_bad}


def keys_of_platform(client: Client, name: str) -> list[Key]:
    """The keys that a service says it signs with. Who does not trust the host knows them from elsewhere."""
    answer = client.log(name).ListVerifyingKeys(service.ListVerifyingKeysRequest())
    try:
        return [Key.parse(each.key) for each in answer.keys]
    except CanNotCheck as error:
        raise FailedPrecondition(f"{name} gave a key that is none: {error}", reason="CHECKPOINT_KEY") from error


def verify_log(
    client: Client,
    wanted: LogRange,
    *,
    keys: Sequence[Key],
    kept: Iterable[Kept] = (),
    advance: Callable[[int], object] = lambda _: None,
) -> Verdict:
    """Recomputes the leaves and the tree of a log, and holds them to every checkpoint that is known.

    Args:
        client: The platform.
        wanted: What to look at. Where it does not begin at 1, the look begins after the last checkpoint before it, once
            proofs show that those kept outside are parts of that one; where they do not, it begins at 1 all the same.
        keys: Keys that may sign; others do not count.
        kept: Checkpoints that were kept outside, of any log.
        advance: Called with how many entries were looked at since the last call.

    Raises:
        CanNotCheck: There is nothing to check signatures with.
        grpc.RpcError: The service can not be reached.
    """
    began = time.monotonic()
    known = [*_of_platform(client, wanted), *(each for each in kept if each.checkpoint.origin == wanted.source)]
    signed, problems = _signed(known, keys)
    head = client.log(wanted.service).GetLogStatus(service.GetLogStatusRequest()).last_position
    problems += _cut(signed, head)
    last = min(wanted.last, head)
    anchor = next((each for each in reversed(signed) if each.checkpoint.size < wanted.first <= last), None)
    tree = (anchor and _from_anchor(client, wanted.service, anchor, signed)) or Range()
    scan = LogScan(wanted.source, tree, signed)
    first = tree.size + 1
    if first <= last:
        request = service.ReadLeavesRequest(from_position=first, to_position=last)
        for part in client.log(wanted.service).ReadLeaves(request):
            scan.take(part.positions, part.leaf_bytes, part.leaves)
            advance(len(part.positions))
    problems += scan.end(last)
    if scan.root is not None and last:
        problems += _stored_tree(client, wanted.service, last, scan.root)
    return Verdict(
        service=wanted.service,
        source=wanted.source,
        first=first,
        last=last,
        entries=scan.entries,
        checkpoints=scan.agreed,
        signed_to=scan.signed_to,
        root=(scan.root or b"").hex(),
        seconds=time.monotonic() - began,
        problems=tuple(in_order(problems)),
    )


def _of_platform(client: Client, wanted: LogRange) -> Iterator[Kept]:
    following = 0
    while True:
        request = service.ListCheckpointsRequest(from_size=following, page_size=_PAGE)
        page = client.log(wanted.service).ListCheckpoints(request)
        for each in page.checkpoints:
            # What the row says; ``_signed`` finds out whether the note signs that.
            yield Kept(Checkpoint(wanted.source, each.size, each.root, rfc3339(each.made_at), each.note), PLATFORM)
        if not page.next_size:
            return
        following = page.next_size


def _signed(known: Sequence[Kept], keys: Sequence[Key]) -> tuple[list[Kept], list[Problem]]:
    """Those that one of the keys signed, by size; and a problem for each other."""
    signed: list[Kept] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for each in sorted(known, key=lambda kept: kept.checkpoint.size):
        checkpoint = each.checkpoint
        try:
            if checkpoint.note not in seen:
                said = Checkpoint.parse(checkpoint.note)
                if (said.origin, said.size, said.root) != (checkpoint.origin, checkpoint.size, checkpoint.root):
                    raise NotProved("what is signed is not what stands beside it")
                checkpoint.signer(keys)
                seen.add(checkpoint.note)
        except NotProved as error:
            problems.append(Problem("unsigned", 0, 0, f"{each.said}: {error}"))
        else:
            signed.append(each)
    return signed, problems


def _cut(signed: Sequence[Kept], head: int) -> list[Problem]:
    beyond = [each for each in signed if each.checkpoint.size > head]
    if not beyond:
        return []
    most = beyond[-1]
    cause = f"the log ends at position {head}, and {most.said} covers {most.checkpoint.size}"
    return [Problem("cut", head + 1, most.checkpoint.size, cause)]


def _from_anchor(client: Client, name: str, anchor: Kept, signed: Sequence[Kept]) -> Range | None:
    """The tree of a checkpoint to go on from; None where the log does not begin as it, or one kept before it, says."""
    log, size = client.log(name), anchor.checkpoint.size
    try:
        tree = Range(size, list(log.GetTree(service.GetTreeRequest(size=size)).peaks))
        if tree.root() != anchor.checkpoint.root:
            return None
        for old in (each.checkpoint for each in signed if each.outside and each.checkpoint.size < size):
            proof = log.ProveConsistency(service.ProveConsistencyRequest(old_size=old.size, new_size=size))
            if not consistent(old.size, size, old.root, anchor.checkpoint.root, list(proof.path)):
                return None
    except (ValueError, grpc.RpcError) as error:
        if isinstance(error, grpc.RpcError):
            _no_tree(error)
        return None
    return tree


def _stored_tree(client: Client, name: str, size: int, root: bytes) -> list[Problem]:
    try:
        if client.log(name).GetTree(service.GetTreeRequest(size=size)).root == root:
            return []
    except grpc.RpcError as error:
        return _no_tree(error)
    return [Problem("tree", 0, 0, "the tree that the platform stores is not that of its log: its proofs do not hold")]


def _no_tree(error: grpc.RpcError) -> list[Problem]:
    if error_details(error)[1].reason != "TREE_BEHIND":
        raise error
    return [Problem("tree", 0, 0, "the tree that the platform stores has a hole: it proves nothing")]
