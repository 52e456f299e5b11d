"""Disks that are full and disks that fail: clear refusals, nothing half-written, and on it goes when they are well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from headrace_kit.objects import ObjectsUnavailable, S3ObjectStore, object_ref
from headrace_local.stack import Stack
from headrace_local.testing import Infrastructure, temporary_folder
from tests.chaos.backbone.members import refused
from tests.chaos.backbone.scene import Stage, at_rest, grows, staged
from tests.support.disks import failing_sync, full
from tests.support.eventually import eventually
from tests.support.processes import tmpfs

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow, pytest.mark.root]
PANIC = "PANIC:  could not fdatasync"
REFUSALS = {"DATABASE_FULL", "DATABASE_UNAVAILABLE", "DATABASE_TIMEOUT"}


@pytest.fixture(scope="module")
def servers() -> Iterator[Infrastructure]:
    """Servers on a small disk of their own."""
    with temporary_folder() as folder, tmpfs(folder / "data", size_mib=500):
        running = Infrastructure(Stack(folder / "data", services=False))
        running.start()
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture
def stage(servers: Infrastructure, tmp_path: Path) -> Iterator[Stage]:
    """A scene on them."""
    with staged(servers, tmp_path, burst=2) as scene:
        for part in ("keeper", "writer", "answerer", "folder"):
            scene.start(part)
        grows(scene, by=60)
        yield scene


def test_a_full_disk_refuses_with_its_reason_and_goes_on_when_there_is_space(
    servers: Infrastructure, stage: Stage
) -> None:
    with full(servers.stack.folder.path):
        eventually(lambda: refused(stage.folder).total() >= 20, within_s=60)
        reasons = set(refused(stage.folder))
    took = grows(stage, by=60)

    print(f"refused while the disk was full: {dict(refused(stage.folder))}; 60 appends after that: {took:.1f} s")
    assert reasons <= REFUSALS
    assert at_rest(stage) == []


async def test_no_half_object_is_seen_when_the_disk_fills_under_it(servers: Infrastructure) -> None:
    where = servers.bucket()
    store = S3ObjectStore(where.endpoint, access_key=where.access_key, secret_key=where.secret_key, bucket=where.bucket)
    content = bytes(range(256)) * (48 << 12)  # 48 MiB: several parts
    reference = object_ref("p", content)
    with full(servers.stack.folder.path, but_bytes=20 << 20):
        with pytest.raises(ObjectsUnavailable) as refusal:
            await store.put("p", content)
        print(f"refused: {refusal.value.message}")
        assert await store.size(reference) is None

    assert await store.put("p", content) == reference
    await store.verify(reference)
    await store.close()


@pytest.mark.strace
def test_a_disk_that_fails_to_sync_stops_the_server_before_it_acknowledges(
    servers: Infrastructure, stage: Stage
) -> None:
    kept = servers.stack.supervised["postgres"]
    before = kept.log.read_text().count(PANIC)
    with failing_sync(psutil.Process(kept.pid)):
        eventually(lambda: kept.log.read_text().count(PANIC) > before, within_s=60)
    took = grows(stage, by=60)

    print(f"60 appends after the failing disk was mended: {took:.1f} s")
    assert set(refused(stage.folder)) <= REFUSALS
    assert at_rest(stage) == []
