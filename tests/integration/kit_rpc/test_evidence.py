"""The log as evidence, over real gRPC and on a real database that somebody tampers with."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from headrace import verifier
from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.service_pb2_grpc import AuditServiceStub, add_AuditServiceServicer_to_server
from headrace.client import Client
from headrace.connection import Connection
from headrace.errors import error_details
from headrace.evidence import Kept, Verdict, prove, read_kept, verify_log
from headrace.evidence.verifying import keys_of_platform
from headrace.export import resolve
from headrace.merkle import Range
from headrace.verifier import Checkpoint, Proof, consistent, leaf_hash, root_from_inclusion
from headrace_kit import evidence_rpc
from headrace_kit.audit import AuditServicer
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.leaf import leaf_bytes
from headrace_kit.lease import Fence
from headrace_kit.log import MemoryLog
from headrace_kit.logkeeper import LogKeeper
from headrace_kit.notary import Checkpoints, FolderPlace, Notary, Signer
from headrace_kit.postgres import connected
from headrace_kit.testing import OPERATOR_CALLER, RunningServer, serving
from headrace_local.testing import FreshDatabase
from tests.support.counters import SOURCE, add, whole_log
from tests.support.kit import counter_store

pytestmark = pytest.mark.timeout(120)
ONE_FILE = Path(verifier.__file__).read_bytes()
NAME = "registry"
"""What clients take the counters' service for."""


@dataclass
class Evidence:
    """A log that is signed and served, and a folder outside."""

    store: PostgresEventStore
    keeper: LogKeeper
    fence: Fence
    signer: Signer
    outside: FolderPlace
    folder: Path
    running: RunningServer
    fresh: FreshDatabase

    @property
    def stub(self) -> Any:
        return AuditServiceStub(self.running.channel())

    @property
    def connection(self) -> Connection:
        return Connection(addresses={NAME: self.running.address}, token=OPERATOR_CALLER.token)

    def notary(self) -> Notary:
        return Notary(self.store.database, self.signer, places=[self.outside], every_s=0.0, chunk=64)

    async def grow(self, count: int, *, signed_every: int = 10) -> None:
        """So many events more, and a checkpoint now and then, which the folder gets too."""
        notary = self.notary()
        while count > 0:
            await add(self.store, uuid4().hex, *range(1, min(count, signed_every) + 1))
            count -= signed_every
            await self.sign(notary)

    async def sign(self, notary: Notary | None = None) -> None:
        """A position for whatever has none, and a checkpoint, which the folder gets too."""
        notary = notary or self.notary()
        while await self.keeper.sequencer.step(self.fence) or self.keeper.sequencer.tail_age_s:
            pass
        while await notary.step(self.fence):
            pass
        assert notary.refused == ""
        await notary.deliver(self.outside)

    async def tamper(self, statement: str) -> None:
        """What whoever owns the database may do."""
        async with connected(self.fresh.migration_dsn) as connection:
            await connection.execute(statement)

    async def verify(self, *, start: int | None = None, end: int | None = None, against: bool = False) -> Verdict:
        """As the command does."""

        def work() -> Verdict:
            kept: Sequence[Kept] = read_kept(str(self.folder), self.connection)[0] if against else ()
            with Client(self.connection) as client:
                [wanted] = resolve(client, [NAME], start=start, end=end)
                return verify_log(client, wanted, keys=[self.signer.key], kept=kept)

        return await asyncio.to_thread(work)


@pytest.fixture
async def evidence(database: FreshDatabase, tmp_path: Path) -> AsyncIterator[Evidence]:
    folder = tmp_path / "outside"
    folder.mkdir()
    async with counter_store(database) as store:
        signer = Signer.load_or_make(SOURCE, tmp_path / "checkpoint.key")
        keeper = LogKeeper(store, MemoryLog(), ttl_s=600)
        fence = await keeper.leadership.take()
        assert fence is not None
        servicer = AuditServicer(store, keeper, {})
        async with serving([(add_AuditServiceServicer_to_server, servicer)]) as running:
            outside = FolderPlace(folder, SOURCE, signer.key)
            yield Evidence(store, keeper, fence, signer, outside, folder, running, database)


async def refused(call: Awaitable[object]) -> tuple[str, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    details = error_details(caught.value)[1]
    return caught.value.code().name, details.reason, details.field


async def test_checkpoints_are_listed_and_found(evidence: Evidence) -> None:
    stub = evidence.stub
    assert (await refused(stub.GetCheckpoint(service.GetCheckpointRequest())))[1] == "NOT_SIGNED_YET"
    await evidence.grow(35)

    pages: list[int] = []
    following = 0
    while True:
        page = await stub.ListCheckpoints(service.ListCheckpointsRequest(from_size=following, page_size=3))
        pages += [each.size for each in page.checkpoints]
        for each in page.checkpoints:
            said = Checkpoint.parse(each.note)
            assert (said.origin, said.size, said.root) == (each.source, each.size, each.root)
            assert said.signer([evidence.signer.key]) == evidence.signer.key
        following = page.next_size
        if not following:
            break
    found = [
        (await stub.GetCheckpoint(service.GetCheckpointRequest(size=size))).checkpoint.size for size in (0, 1, 10, 11)
    ]
    keys = (await stub.ListVerifyingKeys(service.ListVerifyingKeysRequest())).keys

    assert pages == [10, 20, 30, 35]
    assert found == [35, 10, 10, 20]
    assert [each.key for each in keys] == [str(evidence.signer.key)]
    assert keys[0].first_used_at.seconds > 0


async def test_every_entry_is_proved_against_every_checkpoint(evidence: Evidence) -> None:
    await evidence.grow(25)
    stub = evidence.stub
    for entry in await whole_log(evidence.store):
        for size in (0, 20, 25):
            if size and size < entry.position:
                continue
            by_id = service.ProveInclusionRequest(event_id=str(entry.event.event_id), size=size)
            answer = await stub.ProveInclusion(by_id)
            assert answer.entry.event_id == str(entry.event.event_id)
            assert leaf_hash(answer.leaf_bytes) == answer.entry.leaf == entry.leaf
            assert answer.checkpoint.size == (size or 25)
            root = root_from_inclusion(
                entry.position - 1, answer.checkpoint.size, leaf_hash(answer.leaf_bytes), list(answer.path)
            )
            assert root == answer.checkpoint.root
    last = str((await whole_log(evidence.store))[-1].event.event_id)
    by_position, by_id = service.ProveInclusionRequest(position=25), service.ProveInclusionRequest(event_id=last)
    assert await stub.ProveInclusion(by_position) == await stub.ProveInclusion(by_id)


async def test_growth_is_proved(evidence: Evidence) -> None:
    await evidence.grow(23)
    for old, new in [(0, 23), (1, 20), (16, 23), (17, 23), (23, 23), (10, 0)]:
        answer = await evidence.stub.ProveConsistency(service.ProveConsistencyRequest(old_size=old, new_size=new))
        assert (answer.old_size, answer.new_size) == (old, new or 23)
        assert consistent(old, new or 23, answer.old_root, answer.new_root, list(answer.path))
    tree = await evidence.stub.GetTree(service.GetTreeRequest())
    assert Range(tree.size, list(tree.peaks)).root() == tree.root
    assert (tree.size, tree.source) == (23, SOURCE)


async def test_leaves_are_streamed_as_they_are_encoded(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_rpc, "LEAVES", 4)
    monkeypatch.setattr(evidence_rpc, "LEAVES_BYTES", 700)
    await evidence.grow(21)
    call = evidence.stub.ReadLeaves(service.ReadLeavesRequest(from_position=3, to_position=19))
    parts = [part async for part in call]

    assert [position for part in parts for position in part.positions] == list(range(3, 20))
    assert max(len(part.positions) for part in parts) < 4
    log = {entry.position: entry for entry in await whole_log(evidence.store)}
    for part in parts:
        for index, position in enumerate(part.positions):
            entry = log[position]
            assert part.leaves[index * 32 : index * 32 + 32] == entry.leaf
            assert part.leaf_bytes[index] == leaf_bytes(
                source=SOURCE,
                position=position,
                event_id=entry.event.event_id,
                stream_id=entry.event.stream_id,
                version=entry.event.version,
                type=entry.event.type,
                occurred_at=entry.event.occurred_at,
                recorded_at=entry.event.recorded_at,
                sequenced_at=entry.sequenced_at,
                hlc=entry.event.hlc,
                meta=entry.event.meta,
                data=entry.event.data,
            )


@pytest.mark.parametrize(
    ("method", "request_", "code", "field"),
    [
        ("GetCheckpoint", service.GetCheckpointRequest(size=-1), "INVALID_ARGUMENT", "size"),
        ("GetCheckpoint", service.GetCheckpointRequest(size=6), "UNAVAILABLE", ""),
        ("ListCheckpoints", service.ListCheckpointsRequest(page_size=1001), "INVALID_ARGUMENT", "page_size"),
        ("ProveInclusion", service.ProveInclusionRequest(), "INVALID_ARGUMENT", "event_id"),
        ("ProveInclusion", service.ProveInclusionRequest(event_id="x"), "INVALID_ARGUMENT", "event_id"),
        ("ProveInclusion", service.ProveInclusionRequest(event_id=str(UUID(int=1))), "NOT_FOUND", "event_id"),
        ("ProveInclusion", service.ProveInclusionRequest(position=6), "NOT_FOUND", "position"),
        ("ProveInclusion", service.ProveInclusionRequest(position=1, size=4), "NOT_FOUND", "size"),
        ("ProveConsistency", service.ProveConsistencyRequest(old_size=6), "INVALID_ARGUMENT", "old_size"),
        ("ProveConsistency", service.ProveConsistencyRequest(new_size=6), "INVALID_ARGUMENT", "new_size"),
        ("GetTree", service.GetTreeRequest(size=6), "INVALID_ARGUMENT", "size"),
    ],
)
async def test_what_can_not_be_proved_is_refused_by_name(
    evidence: Evidence, method: str, request_: object, code: str, field: str
) -> None:
    await evidence.grow(5)
    answer = await refused(getattr(evidence.stub, method)(request_))
    assert (answer[0], answer[2]) == (code, field)
    assert code != "UNAVAILABLE" or answer[1] == "NOT_SIGNED_YET"


async def test_an_event_without_a_checkpoint_is_not_proved_yet(evidence: Evidence) -> None:
    await evidence.grow(5)
    await add(evidence.store, "late", 1)
    [event] = await evidence.store.read_stream("projects/p/counters/late")
    request = service.ProveInclusionRequest(event_id=str(event.event_id))
    assert await refused(evidence.stub.ProveInclusion(request)) == ("UNAVAILABLE", "NOT_SIGNED_YET", "")
    await evidence.keeper.sequencer.step(evidence.fence)
    assert await refused(evidence.stub.ProveInclusion(request)) == ("UNAVAILABLE", "NOT_SIGNED_YET", "")


async def test_a_sound_log_is_verified_whole_and_in_part(evidence: Evidence) -> None:
    await evidence.grow(305, signed_every=50)
    tree = Range()
    tree.extend(entry.leaf for entry in await whole_log(evidence.store))

    whole = await evidence.verify(against=True)
    part = await evidence.verify(start=120, end=260, against=True)

    assert (whole.first, whole.last, whole.entries, whole.signed_to) == (1, 305, 305, 305)
    assert (whole.sound, whole.checkpoints, whole.root) == (True, 14, tree.root().hex())
    assert (part.first, part.last, part.entries, part.signed_to, part.sound) == (101, 259, 159, 250, True)
    assert (await evidence.verify(start=120)).root == tree.root().hex()


async def test_an_empty_log_is_sound(evidence: Evidence) -> None:
    verdict = await evidence.verify()
    assert (verdict.sound, verdict.entries, verdict.last) == (True, 0, 0)


AT_37 = "local_id = (SELECT local_id FROM log_entries WHERE position = 37)"
FLIP = "UPDATE events SET {0} = set_byte({0}, {1}, get_byte({0}, {1}) # 1) WHERE " + AT_37
TAKEN_OUT = """
CREATE TEMP TABLE pair AS SELECT * FROM log_entries WHERE position IN (37, 52);
DELETE FROM log_entries WHERE position IN (37, 52);
"""
SWAPPED_ROWS = TAKEN_OUT + "INSERT INTO log_entries SELECT 89 - position, local_id, sequenced_at, leaf FROM pair"
SWAPPED_EVENTS = f"""{TAKEN_OUT}
INSERT INTO log_entries SELECT a.position, b.local_id, a.sequenced_at, a.leaf
FROM pair a JOIN pair b ON b.position = 89 - a.position
"""
DELETED_EVENT = f"DELETE FROM events WHERE {AT_37}"


@pytest.mark.parametrize(
    ("statement", "problems"),
    [
        (FLIP.format("data", 1), [("changed", 37, 37)]),
        (FLIP.format("data", 0), [("changed", 37, 37)]),  # its tag: the event can not be parsed any more
        (FLIP.format("meta", 5), [("changed", 37, 37)]),
        (FLIP.format("meta", 0), [("changed", 37, 37)]),
        ("UPDATE events SET occurred_at = occurred_at + interval '1 microsecond'", [("changed", 1, 1)]),
        ("UPDATE log_entries SET leaf = sha256('') WHERE position = 37", [("changed", 37, 37), ("rewritten", 31, 40)]),
        ("DELETE FROM log_entries WHERE position = 37", [("missing", 37, 37)]),
        ("DELETE FROM log_entries WHERE position BETWEEN 37 AND 39", [("missing", 37, 39)]),
        (DELETED_EVENT, [("missing", 37, 37)]),
        (SWAPPED_ROWS, [("moved", 37, 37), ("rewritten", 31, 40), ("moved", 52, 52)]),
        (SWAPPED_EVENTS, [("moved", 37, 37), ("moved", 52, 52)]),
        ("DELETE FROM log_entries WHERE position > 77", [("cut", 78, 85)]),
        ("DELETE FROM merkle_nodes", [("tree", 0, 0)]),
        ("UPDATE merkle_nodes SET hash = sha256('')", [("tree", 0, 0)]),
        ("UPDATE checkpoints SET root = sha256('') WHERE size = 40", [("unsigned", 0, 0)]),
        ("UPDATE checkpoints SET note = replace(note, 'time 2', 'time 1') WHERE size = 40", [("unsigned", 0, 0)]),
    ],
)  # fmt: skip
async def test_whoever_tampers_is_found_and_the_place_is_named(
    evidence: Evidence, statement: str, problems: list[tuple[str, int, int]]
) -> None:
    await evidence.grow(300 if "merkle_nodes" in statement else 85)
    assert (await evidence.verify()).sound

    await evidence.tamper(statement)

    found = (await evidence.verify()).problems
    assert [(each.kind, each.first, each.last) for each in found][: len(problems)] == problems
    assert len(found) == len(problems) or "occurred_at" in statement


async def test_an_event_rewritten_with_its_leaf_lies_between_two_checkpoints(evidence: Evidence) -> None:
    await evidence.grow(85)
    await _rewrite(evidence, 37)

    verdict = await evidence.verify()

    assert [(each.kind, each.first, each.last) for each in verdict.problems] == [("rewritten", 31, 40)]
    assert "the last that agrees covers 30" in verdict.problems[0].cause
    assert (verdict.signed_to, verdict.first_bad) == (30, 31)


async def test_a_log_cut_and_signed_again_with_the_key_is_found_by_what_was_kept(evidence: Evidence) -> None:
    await evidence.grow(85)
    assert (await evidence.verify(against=True)).sound
    await _cut(evidence, 77)

    shorter = await evidence.verify(against=True)
    await _sign_again(evidence, grow=40)

    assert [(each.kind, each.first, each.last) for each in shorter.problems] == [("cut", 78, 85)]
    assert (await evidence.verify()).sound  # the platform agrees with itself
    verdict = await evidence.verify(against=True)
    assert [(each.kind, each.first, each.last) for each in verdict.problems] == [("rewritten", 71, 80)]
    assert "the last that agrees covers 70" in verdict.problems[0].cause
    late = await evidence.verify(start=110, against=True)  # no proof leads there, so all is looked at
    assert [(each.kind, each.first, each.last) for each in late.problems] == [("rewritten", 71, 80)]


async def test_a_log_rewritten_and_signed_again_with_the_key_is_found_by_what_was_kept(evidence: Evidence) -> None:
    await evidence.grow(85)
    await _rewrite(evidence, 37)
    await _sign_again(evidence, grow=10)

    assert (await evidence.verify()).sound
    verdict = await evidence.verify(against=True)
    assert [(each.kind, each.first, each.last) for each in verdict.problems] == [("rewritten", 31, 40)]


async def test_checkpoints_of_another_key_do_not_count(evidence: Evidence, tmp_path: Path) -> None:
    await evidence.grow(10)
    evidence.signer = Signer.load_or_make(SOURCE, tmp_path / "other.key")
    verdict = await evidence.verify()
    assert [each.kind for each in verdict.problems] == ["unsigned"]
    assert verdict.signed_to == 0


async def program(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    variables = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **environment}
    process = await asyncio.create_subprocess_exec(*arguments, stdout=PIPE, stderr=PIPE, env=variables)
    async with asyncio.timeout(60):
        told, cause = await process.communicate()
    return process.returncode or 0, told.decode(), cause.decode()


Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def command(evidence: Evidence) -> Command:
    """Runs ``headrace log ...`` for real."""
    environment = {"HEADRACE_REGISTRY_ADDRESS": evidence.running.address, "HEADRACE_TOKEN": OPERATOR_CALLER.token}
    headrace = str(Path(sys.executable).parent / "headrace")
    return lambda *arguments: program(
        headrace, "log", *arguments, **environment, HEADRACE_DATA=str(evidence.folder / "none")
    )


async def test_the_command_tells_people_and_programs(evidence: Evidence, command: Command) -> None:
    await evidence.grow(45)
    status, told, _ = await command("verify", "--against", str(evidence.folder))
    assert (status, "sound" in told, "keys kept outside" in told) == (0, True, True)

    await evidence.tamper(FLIP.format("data", 1))

    status, told, _ = await command("verify")
    assert status == 1
    assert "BAD from position 37" in told
    assert "registry, position 37: changed:" in told
    status, told, _ = await command("verify", "--json", "--key", str(evidence.signer.key))
    [verdict] = json.loads(told)
    assert (status, verdict["first_bad"], verdict["sound"]) == (1, 37, False)
    assert (await command("verify", "--service", "registry", "--from", "5", "--to", "30"))[0] == 0
    assert (await command("verify", "--against", str(evidence.folder / "nothing")))[0] == 1
    assert (await command("prove", "registry:37"))[0] == 1


async def test_a_proof_is_checked_by_one_file_without_the_platform(
    evidence: Evidence, command: Command, tmp_path: Path
) -> None:
    await evidence.grow(45)
    entry = (await whole_log(evidence.store))[36]
    file = tmp_path / "proof.json"

    status, told, _ = await command("prove", str(entry.event.event_id), "--out", str(file))
    assert (status, "position 37 of 45" in told) == (0, True)
    assert (await command("prove", "registry:37", "--out", str(file)))[0] == 1  # never written over
    status, told, _ = await command("prove", "registry:37", "--out", str(tmp_path / "again.json"), "--json")
    assert (status, json.loads(told)["position"], json.loads(told)["size"]) == (0, 37, 45)
    kept = str(evidence.folder / "headrace-counters")
    status, against, _ = await command("prove", "registry:37", "--against", kept)
    assert (status, Proof.from_json(against).checkpoint.size) == (0, 40)

    alone = tmp_path / "verifier.py"
    alone.write_bytes(ONE_FILE)
    given = [str(alone), str(file), "--key", f"{kept}/keys", "--checkpoints", kept]
    for flags in ([], ["-I", "-S"]):  # with and without installed packages: by cryptography, and by openssl
        status, told, cause = await program(sys.executable, *flags, *given, PYTHONPATH="")
        assert (status, cause) == (0, "")
        assert "PROVED" in told
        assert "headrace/counters, position 37 of 45" in told
        assert "persons/operator" in told


async def test_an_exact_wait_ends_with_the_checkpoint(evidence: Evidence) -> None:
    await evidence.grow(5)
    await add(evidence.store, "late", 1)
    await evidence.keeper.sequencer.step(evidence.fence)

    def work() -> Proof:
        with Client(evidence.connection) as client:
            assert keys_of_platform(client, NAME) == [evidence.signer.key]
            return prove(client, "registry:6", wait_s=30)

    proving = asyncio.ensure_future(asyncio.to_thread(work))
    notary = evidence.notary()
    while await notary.step(evidence.fence):
        pass
    assert (await proving).checkpoint.size == 6


async def _rewrite(evidence: Evidence, position: int) -> None:
    """Changes an event and makes its leaf anew, as whoever knows decision 0003 would."""
    await evidence.tamper(FLIP.format("data", 1).replace("37", str(position)))
    request = service.ReadLeavesRequest(from_position=position, to_position=position)
    [part] = [each async for each in evidence.stub.ReadLeaves(request)]
    leaf = leaf_hash(part.leaf_bytes[0])
    await evidence.tamper(f"UPDATE log_entries SET leaf = '\\x{leaf.hex()}' WHERE position = {position}")


async def _cut(evidence: Evidence, last: int) -> None:
    await evidence.tamper(
        f"DELETE FROM log_entries WHERE position > {last}; UPDATE sequencer_state SET position = {last};"
        f"DELETE FROM checkpoints WHERE size > {last}; DELETE FROM merkle_nodes"
    )


async def _sign_again(evidence: Evidence, *, grow: int) -> None:
    """Goes on from a past of one's own, with the key, and lets nothing out."""
    await evidence.tamper("DELETE FROM checkpoints; DELETE FROM merkle_nodes")
    notary = Notary(evidence.store.database, evidence.signer, every_s=0.0, chunk=64)
    for _ in range(grow):
        await add(evidence.store, uuid4().hex, 1)
    while await evidence.keeper.sequencer.step(evidence.fence) or evidence.keeper.sequencer.tail_age_s:
        pass
    while await notary.step(evidence.fence):
        pass
    assert notary.refused == ""
    newest = await Checkpoints(evidence.store.database, SOURCE).newest()
    assert newest is not None
    assert newest.signer([evidence.signer.key]) == evidence.signer.key
