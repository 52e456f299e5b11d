"""The notary on a real database: what it signs, what it refuses to sign, and where its checkpoints go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from headrace.merkle import Range
from headrace.verifier import Checkpoint, checkpoints_in, consistent, root_from_inclusion
from headrace_kit.errors import Deposed, FailedPrecondition, Unavailable
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.leaf import leaf_bytes
from headrace_kit.lease import Fence, Leadership
from headrace_kit.log import CHECKPOINTS, KafkaLog, KafkaSettings, LogUnavailable, MemoryLog, TopicPartition
from headrace_kit.notary import (
    Checkpoints,
    FolderPlace,
    Notary,
    ObjectsPlace,
    Place,
    Signer,
    StoredTree,
    TopicPlace,
    TreeBehind,
    read_leaves,
)
from headrace_kit.objects import MemoryObjectStore, ObjectsUnavailable
from headrace_kit.postgres import connected
from headrace_kit.sequencer import Sequencer
from headrace_local.testing import FreshDatabase, Infrastructure
from tests.support.counters import SOURCE, add, whole_log
from tests.support.kit import counter_store

pytestmark = pytest.mark.timeout(120)


@dataclass
class Signed:
    """A log, its sequencer and what signs it."""

    store: PostgresEventStore
    fence: Fence
    signer: Signer
    fresh: FreshDatabase
    sequencer: Sequencer = field(init=False)

    def __post_init__(self) -> None:
        self.sequencer = Sequencer(self.store.database, SOURCE)

    def notary(self, *places: Place, chunk: int = 64) -> Notary:
        """A notary that signs whenever the log grew."""
        return Notary(self.store.database, self.signer, places=places, every_s=0.0, chunk=chunk)

    async def grow(self, count: int) -> None:
        """So many events more, with their places."""
        while count > 0:
            await add(self.store, uuid4().hex, *range(1, min(count, 200) + 1))
            count -= 200
        while await self.sequencer.step(self.fence) or self.sequencer.tail_age_s:
            pass

    async def sign(self, notary: Notary) -> Checkpoint:
        """Takes all there is; returns the newest checkpoint."""
        while await notary.step(self.fence):
            pass
        assert notary.refused == ""
        found = await Checkpoints(self.store.database, SOURCE).newest()
        assert found is not None
        return found

    async def tamper(self, statement: str) -> None:
        """What whoever owns the database may do."""
        async with connected(self.fresh.migration_dsn) as connection:
            await connection.execute(statement)


@pytest.fixture
async def signed(database: FreshDatabase, tmp_path: Path) -> AsyncIterator[Signed]:
    async with counter_store(database) as store:
        fence = await Leadership(store.database, "log", ttl_s=600).take()
        assert fence is not None
        yield Signed(store, fence, Signer.load_or_make(SOURCE, tmp_path / "checkpoint.key"), database)


async def tree_of(store: PostgresEventStore) -> Range:
    tree = Range()
    tree.extend(entry.leaf for entry in await whole_log(store))
    return tree


async def test_a_checkpoint_says_what_the_log_is_and_is_signed(signed: Signed) -> None:
    await signed.grow(3)
    before = datetime.now(UTC) - timedelta(seconds=60)

    checkpoint = await signed.sign(signed.notary())

    said = Checkpoint.parse(checkpoint.note)
    assert said == checkpoint
    assert (said.origin, said.size, said.root) == (SOURCE, 3, (await tree_of(signed.store)).root())
    assert before < datetime.fromisoformat(said.made_at) < before + timedelta(seconds=180)
    assert said.signer([signed.signer.key]) == signed.signer.key
    assert [key for key, _ in await Checkpoints(signed.store.database, SOURCE).keys()] == [str(signed.signer.key)]


async def test_nothing_is_signed_twice(signed: Signed) -> None:
    notary, checkpoints = signed.notary(), Checkpoints(signed.store.database, SOURCE)
    assert await notary.step(signed.fence) is False
    assert await checkpoints.newest() is None
    await signed.grow(2)
    await signed.sign(notary)
    await signed.sign(notary)
    await signed.sign(signed.notary())

    assert [each.size for each in await checkpoints.page(0, 10)] == [2]


@pytest.mark.parametrize("size", [1, 255, 256, 257, 1100])
async def test_the_stored_tree_proves_every_entry_and_every_growth(signed: Signed, size: int) -> None:
    await signed.grow(size)
    checkpoint = await signed.sign(signed.notary())
    tree, hashes = StoredTree(signed.store.database), [entry.leaf for entry in await whole_log(signed.store)]

    assert checkpoint.root == (await tree_of(signed.store)).root() == await tree.root(size)
    for index in {0, 1, 127, 254, 255, 256, size // 2, size - 1} & set(range(size)):
        path = await tree.inclusion(index, size)
        assert root_from_inclusion(index, size, hashes[index], path) == checkpoint.root
        old = Range()
        old.extend(hashes[:index])
        assert consistent(index, size, old.root(), checkpoint.root, await tree.consistency(index, size))
        assert await tree.peaks(index) == old.peaks


async def test_a_log_that_was_there_before_is_taken_in_chunks_and_after_a_stop(signed: Signed) -> None:
    await signed.grow(700)
    first = signed.notary(chunk=100)
    for _ in range(4):
        assert await first.step(signed.fence)

    checkpoint = await signed.sign(signed.notary(chunk=100))

    assert (checkpoint.size, checkpoint.root) == (700, (await tree_of(signed.store)).root())
    rows = await signed.store.database.fetch("SELECT level, place FROM merkle_nodes ORDER BY place")
    assert [tuple(row) for row in rows] == [(8, 0), (8, 1)]


async def test_who_no_longer_leads_signs_nothing(signed: Signed) -> None:
    await signed.grow(300)
    old = signed.fence
    await Leadership(signed.store.database, "log").give_up()
    await signed.store.database.execute("UPDATE leases SET epoch = epoch + 1")

    with pytest.raises(Deposed):
        await signed.notary(chunk=2048).step(old)

    assert await signed.store.database.fetchval("SELECT count(*) FROM merkle_nodes") == 0
    assert await Checkpoints(signed.store.database, SOURCE).newest() is None


async def test_a_tree_that_is_not_there_yet_is_not_guessed(signed: Signed) -> None:
    await signed.grow(256)
    with pytest.raises(TreeBehind):
        await StoredTree(signed.store.database).root(256)
    assert len(await StoredTree(signed.store.database).root(255)) == 32


@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        ("DELETE FROM log_entries WHERE position > 200", "ends before the checkpoint of size 300"),
        ("UPDATE log_entries SET leaf = sha256('') WHERE position = 290", "does not begin as the checkpoint"),
        ("DELETE FROM log_entries WHERE position = 270", "position 270 is missing"),
        ("DELETE FROM merkle_nodes", "does not begin as the checkpoint"),
    ],
)
async def test_a_log_that_is_not_what_was_signed_is_not_signed_again(
    signed: Signed, statement: str, cause: str
) -> None:
    await signed.grow(300)
    await signed.sign(signed.notary())
    if "merkle_nodes" in statement:  # nodes alone are made again from the leaves
        await signed.tamper("UPDATE log_entries SET leaf = sha256('') WHERE position = 17")
    await signed.tamper(statement)
    if "position > 200" not in statement:
        await signed.grow(1)
    notary = signed.notary()

    while await notary.step(signed.fence):
        pass

    assert cause in notary.refused
    assert [each.size for each in await Checkpoints(signed.store.database, SOURCE).page(0, 9)] == [300]


async def test_what_is_put_right_is_signed_again(signed: Signed) -> None:
    await signed.grow(10)
    await signed.sign(signed.notary())
    await signed.tamper("CREATE TABLE kept AS SELECT * FROM log_entries; DELETE FROM log_entries WHERE position > 5")
    notary = signed.notary()
    await notary.step(signed.fence)
    assert notary.refused
    await signed.tamper("INSERT INTO log_entries SELECT * FROM kept WHERE position > 5")
    await signed.grow(1)

    assert (await signed.sign(notary)).size == 11


async def test_a_restored_backup_is_found_by_the_folder_outside(signed: Signed, tmp_path: Path) -> None:
    outside = FolderPlace(tmp_path, SOURCE, signed.signer.key)
    await signed.grow(10)
    notary = signed.notary(outside)
    await signed.sign(notary)
    assert await notary.deliver(outside)
    await signed.tamper(
        "DELETE FROM log_entries WHERE position > 5; DELETE FROM checkpoints; DELETE FROM checkpoint_marks"
    )
    again = signed.notary(outside)

    await again.step(signed.fence)

    assert "ends before the checkpoint of size 10" in again.refused


async def test_the_services_role_can_not_change_what_was_signed(signed: Signed) -> None:
    await signed.grow(256)
    await signed.sign(signed.notary())
    for table in ("merkle_nodes", "checkpoints", "checkpoint_keys"):
        assert await signed.store.database.fetchval(f"SELECT count(*) FROM {table}") == 1
        for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with pytest.raises(Exception, match="permission denied"):
                await signed.store.database.execute(statement)


async def test_the_database_encodes_leaves_as_the_sequencer_does(signed: Signed) -> None:
    await signed.grow(5)
    await signed.tamper(
        "UPDATE events SET stream_id = 'projects/p/counters/' || repeat('ä€𐍈', version::int),"
        " occurred_at = occurred_at - version * interval '23456 days 1.000001 seconds',"
        " data = CASE version WHEN 1 THEN ''::bytea ELSE data END, hlc = -version"
    )
    leaves = await read_leaves(signed.store.database, SOURCE, 1, 5)

    assert [each.position for each in leaves] == [1, 2, 3, 4, 5]
    rows = await signed.store.database.fetch("SELECT * FROM log_entries JOIN events USING (local_id) ORDER BY position")
    names = "position event_id stream_id version type occurred_at recorded_at sequenced_at hlc meta data".split()  # noqa: SIM905
    for row, leaf in zip(rows, leaves, strict=True):
        assert leaf.content == leaf_bytes(source=SOURCE, **{name: row[name] for name in names})
        assert leaf.hash == row["leaf"]
    assert [each.position for each in await read_leaves(signed.store.database, SOURCE, 2, 3)] == [2, 3]


@asynccontextmanager
async def topic_place(
    infrastructure: Infrastructure,
) -> AsyncIterator[tuple[TopicPlace, Callable[[], Awaitable[list[str]]]]]:
    log = KafkaLog(KafkaSettings(infrastructure.addresses.kafka_bootstrap))
    place = TopicPlace(log)

    async def notes() -> list[str]:
        consumer = await log.open_consumer([CHECKPOINTS], group=f"test-{uuid4().hex}")
        try:
            found: list[str] = []
            partition = TopicPartition(CHECKPOINTS, 0)
            while partition not in consumer.assignment:
                await consumer.poll([], timeout_s=0.1, max_records=1)
            first, after = (await consumer.bounds([partition]))[partition]
            consumer.seek(partition, first)
            while first < after:
                polled = await consumer.poll([partition], timeout_s=1.0, max_records=1000)
                for record in polled.get(partition, ()):
                    assert record.key == SOURCE.encode()
                    found.append(record.value.decode())
                    first = record.offset + 1
            return found
        finally:
            await consumer.close()

    yield place, notes
    await place.close()


async def test_checkpoints_reach_every_place_in_order(
    signed: Signed, infrastructure: Infrastructure, tmp_path: Path
) -> None:
    objects, folder = MemoryObjectStore(), FolderPlace(tmp_path, SOURCE, signed.signer.key)
    async with topic_place(infrastructure) as (topic, notes):
        notary = signed.notary(topic, ObjectsPlace(objects), folder)
        for count in (1, 2):
            await signed.grow(count)
            await signed.sign(notary)
        made = await Checkpoints(signed.store.database, SOURCE).page(0, 10)

        for place in (topic, ObjectsPlace(objects), folder):
            assert await notary.deliver(place)
            assert await notary.deliver(place)

        sent = [note for note in await notes() if note in {each.note for each in made}]
    assert [each.size for each in made] == [1, 3]
    assert sent == [each.note for each in made]
    assert [data.decode() for data in objects.objects.values()] == [made[-1].note]
    assert all(key.startswith("_checkpoints/") for key in objects.objects)
    assert checkpoints_in(tmp_path / "headrace-counters") == list(made)
    assert await folder.newest() == made[-1]
    assert (tmp_path / "headrace-counters" / "keys").read_text() == f"{signed.signer.key}\n"


class Failing:
    """A place that is away for a while."""

    name, every_s, newest_only = "failing", 0.0, False

    def __init__(self, times: int) -> None:
        self.left, self.taken = times, list[Checkpoint]()

    async def put(self, checkpoints: Sequence[Checkpoint]) -> None:
        if self.left:
            self.left -= 1
            raise Unavailable("away")
        self.taken += checkpoints

    async def newest(self) -> Checkpoint | None:
        raise OSError("away")

    async def close(self) -> None: ...


async def test_a_place_that_is_away_gets_everything_later(signed: Signed) -> None:
    place = Failing(2)
    notary = signed.notary(place)
    for _ in range(3):
        await signed.grow(1)
        await signed.sign(notary)
        await notary.deliver(place)

    assert [each.size for each in place.taken] == [1, 2, 3]
    assert notary.failures == {"failing": 2}


async def test_places_that_fail_say_so(signed: Signed, tmp_path: Path) -> None:
    await signed.grow(1)
    checkpoint = await signed.sign(signed.notary())
    objects = MemoryObjectStore()
    objects.available = False
    with pytest.raises(NotADirectoryError):
        await FolderPlace(tmp_path / "unmounted", SOURCE, signed.signer.key).put([checkpoint])
    with pytest.raises(ObjectsUnavailable):
        await ObjectsPlace(objects).put([checkpoint])
    log = MemoryLog()
    place = TopicPlace(log)
    with pytest.raises(LogUnavailable):
        await place.put([checkpoint])
    log.create(CHECKPOINTS, 1)
    await place.put([checkpoint])
    assert [each.value.decode() for each in log.records(CHECKPOINTS)] == [checkpoint.note]


async def test_a_line_that_a_crash_cut_off_spoils_no_other(signed: Signed, tmp_path: Path) -> None:
    notary, place = signed.notary(), FolderPlace(tmp_path, SOURCE, signed.signer.key)
    for _ in range(2):
        await signed.grow(1)
        await signed.sign(notary)
    first, second = await Checkpoints(signed.store.database, SOURCE).page(0, 2)
    await place.put([first])
    [file] = (tmp_path / "headrace-counters").glob("*.checkpoints")
    for cut in range(1, len(first.note.encode()) - 1):
        file.write_bytes(first.note.encode()[:cut])
        await place.put([second])
        assert checkpoints_in(file) == [second]


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "checkpoint.key"
    first, second = Signer.load_or_make(SOURCE, path), Signer.load_or_make(SOURCE, path)

    assert first.key == second.key
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_key_that_is_none_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FailedPrecondition, match=r"key\.pem") as caught:
        Signer.load(SOURCE, path)
    assert caught.value.reason == "CHECKPOINT_KEY"
