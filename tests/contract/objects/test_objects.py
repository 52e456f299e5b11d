"""One contract for the object store in memory and on S3."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import pytest
import urllib3

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace_kit.errors import InvalidArgument, NotFound
from headrace_kit.objects import (
    MemoryObjectStore,
    ObjectCorrupt,
    ObjectStore,
    ObjectsUnavailable,
    S3ObjectStore,
    holds,
    object_ref,
)
from headrace_local.s3 import ObjectStoreAddress


class Damage(Protocol):
    async def __call__(self, reference: ObjectRef, content: bytes) -> None: ...


@dataclass(frozen=True)
class Subject:
    store: ObjectStore
    damage: Damage
    """Puts other bytes where a reference leads."""


def on_s3(address: ObjectStoreAddress, **changes: str) -> S3ObjectStore:
    given = {"endpoint": address.endpoint, "access_key": address.access_key, "secret_key": address.secret_key}
    arguments = {**given, "bucket": address.bucket, **changes}
    return S3ObjectStore(arguments.pop("endpoint"), **arguments)  # type: ignore[arg-type]


@pytest.fixture(params=["memory", "s3"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        memory = MemoryObjectStore()

        async def damage_memory(reference: ObjectRef, content: bytes) -> None:
            memory.objects[reference.uri] = content

        yield Subject(memory, damage_memory)
        return
    store = on_s3(request.getfixturevalue("bucket"))

    async def damage_s3(reference: ObjectRef, content: bytes) -> None:
        await asyncio.to_thread(http, "PUT", store.presign_put(reference), content)

    yield Subject(store, damage_s3)
    await store.close()


def http(method: str, url: str, body: bytes | None = None) -> urllib3.BaseHTTPResponse:
    return urllib3.PoolManager(retries=False).request(method, url, body=body)


def names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(100_000), os.urandom(6 << 20)], ids=len)
async def test_what_was_put_comes_back(subject: Subject, content: bytes) -> None:
    reference = await subject.store.put("default", content, "application/onnx")
    digest = hashlib.sha256(content).hexdigest()
    assert reference == ObjectRef(
        uri=f"default/sha256/{digest[:2]}/{digest}",
        sha256=digest,
        size_bytes=len(content),
        media_type="application/onnx",
    )
    assert await subject.store.get(reference) == content
    assert await subject.store.size(reference) == len(content)
    await subject.store.verify(reference)


async def test_bytes_files_and_chunks_are_the_same_object(subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"abcdef")
    references = [
        await subject.store.put("default", b"abcdef"),
        await subject.store.put("default", tmp_path / "model"),
        await subject.store.put("default", chunks(b"abc", b"", b"def")),
    ]
    assert references == [references[0]] * 3


async def test_projects_do_not_share_objects(subject: Subject) -> None:
    reference = await subject.store.put("ours", b"secret")
    elsewhere = ObjectRef(uri=reference.uri.replace("ours", "theirs"), sha256=reference.sha256, size_bytes=6)
    assert await subject.store.size(elsewhere) is None
    with pytest.raises(NotFound):
        await subject.store.get(elsewhere)


async def test_what_is_not_there_is_not_found(subject: Subject, tmp_path: Path) -> None:
    reference = object_ref("default", b"never stored")
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: subject.store.get(reference),
        lambda: subject.store.verify(reference),
        lambda: subject.store.download(reference, tmp_path / "file"),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            await call()
    assert await subject.store.size(reference) is None
    assert names(tmp_path) == []


async def test_what_was_deleted_is_gone_and_may_come_back(subject: Subject) -> None:
    reference, other = await subject.store.put("default", b"model"), await subject.store.put("default", b"other")
    await subject.store.delete(reference)
    await subject.store.delete(reference)
    with pytest.raises(NotFound):
        await subject.store.get(reference)
    assert await subject.store.get(other) == b"other"
    await subject.store.put("default", b"model")
    assert await subject.store.get(reference) == b"model"


@pytest.mark.parametrize("content", [b"", b"modeL", b"mode", b"model and more"])
async def test_other_bytes_are_never_served(subject: Subject, content: bytes, tmp_path: Path) -> None:
    reference = await subject.store.put("default", b"model")
    await subject.damage(reference, content)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: subject.store.get(reference),
        lambda: subject.store.verify(reference),
        lambda: subject.store.download(reference, tmp_path / "file"),
    ]
    for call in calls:
        with pytest.raises(ObjectCorrupt):
            await call()
    assert names(tmp_path) == []


async def test_the_store_holds_what_is_whole_and_unaltered(subject: Subject) -> None:
    reference = await subject.store.put("default", b"model")
    assert await holds(subject.store, reference)
    for content in (b"modeL", b"mode"):
        await subject.damage(reference, content)
        assert not await holds(subject.store, reference)
    assert not await holds(subject.store, object_ref("default", b"never stored"))


async def test_putting_again_mends_what_was_damaged(subject: Subject) -> None:
    reference = await subject.store.put("default", b"model")
    await subject.damage(reference, b"modeL")
    assert await subject.store.put("default", b"model") == reference
    assert await subject.store.get(reference) == b"model"


async def test_a_download_replaces_a_file_whole(subject: Subject, tmp_path: Path) -> None:
    reference = await subject.store.put("default", b"new")
    (tmp_path / "file").write_bytes(b"older and longer")
    await subject.store.download(reference, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "uri", ["", "default/sha256/aa/bb", "../sha256/{0}/{1}", "a/b/sha256/{0}/{1}", "default/sha256/{0}/../{1}"]
)
async def test_a_reference_leads_nowhere_else(subject: Subject, uri: str) -> None:
    known = await subject.store.put("default", b"model")
    reference = ObjectRef(uri=uri.format(known.sha256[:2], known.sha256), sha256=known.sha256, size_bytes=5)
    with pytest.raises(InvalidArgument):
        await subject.store.get(reference)
    with pytest.raises(InvalidArgument):
        subject.store.presign_put(reference)


@pytest.mark.parametrize("project", ["", "a/b", ".", ".."])
async def test_a_project_is_one_part_of_a_key(subject: Subject, project: str) -> None:
    with pytest.raises(InvalidArgument):
        await subject.store.put(project, b"x")


async def test_many_at_once(subject: Subject) -> None:
    contents = [os.urandom(1000) for _ in range(60)]
    references = await asyncio.gather(*(subject.store.put("default", each) for each in [*contents, *contents]))
    assert await asyncio.gather(*(subject.store.get(each) for each in references)) == [*contents, *contents]


async def test_presigned_urls_move_the_bytes(bucket: ObjectStoreAddress) -> None:
    store, reference = on_s3(bucket), object_ref("default", b"model")
    assert (await asyncio.to_thread(http, "PUT", store.presign_put(reference), b"model")).status == 200
    await store.verify(reference)
    assert (await asyncio.to_thread(http, "GET", store.presign_get(reference))).data == b"model"
    await store.close()


async def test_presigned_urls_are_good_for_one_thing_and_a_while(bucket: ObjectStoreAddress) -> None:
    store, reference = on_s3(bucket), object_ref("default", b"model")
    await store.put("default", b"model")
    url = store.presign_get(reference)
    other = url.replace(reference.sha256, "0" * 64)
    assert (await asyncio.to_thread(http, "PUT", url, b"other")).status in (400, 403)
    assert (await asyncio.to_thread(http, "GET", other)).status in (400, 403)
    expiring = store.presign_get(reference, ttl=timedelta(seconds=1))
    async with asyncio.timeout(20):
        while (await asyncio.to_thread(http, "GET", expiring)).status == 200:
            await asyncio.sleep(0.2)
    assert await store.get(reference) == b"model"
    await store.close()


@pytest.mark.parametrize(
    "changes",
    [{"secret_key": "another-secret"}, {"bucket": "no-such-bucket"}, {"endpoint": "http://127.0.0.1:1"}],
    ids=["wrong secret", "no bucket", "no server"],
)
async def test_a_store_that_refuses_is_unavailable_and_not_empty(
    bucket: ObjectStoreAddress, changes: dict[str, str]
) -> None:
    store = on_s3(bucket, **changes)
    with pytest.raises(ObjectsUnavailable):
        await store.put("default", b"x")
    with pytest.raises(ObjectsUnavailable):
        await store.get(object_ref("default", b"x"))
    await store.close()


async def test_memory_can_be_away_too() -> None:
    store = MemoryObjectStore()
    store.available = False
    with pytest.raises(ObjectsUnavailable):
        await store.put("default", b"x")


def part_of(store: ObjectStore, upload: str, number: int, content: bytes, *, url: str) -> None:
    """Sends a part as whoever has its URL does."""
    if isinstance(store, MemoryObjectStore):
        store.uploads[upload][number] = content
        return
    with urllib3.PoolManager() as pool:
        assert pool.request("PUT", url, body=content).status == 200


async def test_parts_become_one_object_whatever_their_order(subject: Subject) -> None:
    store, parts = subject.store, {1: os.urandom(6 << 20), 2: os.urandom(6 << 20), 3: b"the end"}
    whole = b"".join(parts.values())
    wanted = object_ref("p", whole)
    upload = await store.begin_upload(wanted)
    assert await store.uploaded_parts(wanted, upload) == {}
    for number in (3, 1):
        url = store.presign_part(wanted, upload, number)
        await asyncio.to_thread(part_of, store, upload, number, parts[number], url=url)
    assert await store.uploaded_parts(wanted, upload) == {1: 6 << 20, 3: 7}
    url = store.presign_part(wanted, upload, 2)
    await asyncio.to_thread(part_of, store, upload, 2, parts[2], url=url)
    await store.complete_upload(wanted, upload)
    assert await store.get(wanted) == whole
    with pytest.raises(NotFound):
        await store.uploaded_parts(wanted, upload)
    with pytest.raises(NotFound):
        await store.complete_upload(wanted, upload)


async def test_an_upload_that_is_aborted_leaves_nothing(subject: Subject) -> None:
    store, wanted = subject.store, object_ref("p", os.urandom(100))
    upload = await store.begin_upload(wanted)
    await store.abort_upload(wanted, upload)
    await store.abort_upload(wanted, upload)
    with pytest.raises(NotFound):
        await store.uploaded_parts(wanted, upload)
    assert await store.size(wanted) is None


async def test_an_upload_is_of_one_object_alone(subject: Subject) -> None:
    store = subject.store
    wanted, other = object_ref("p", os.urandom(100)), object_ref("other", os.urandom(100))
    upload = await store.begin_upload(wanted)
    with pytest.raises(NotFound):
        await store.uploaded_parts(other, upload)
    with pytest.raises(NotFound):
        await store.complete_upload(other, upload)
    with pytest.raises(NotFound):
        await store.uploaded_parts(wanted, "no upload's id")


async def test_parts_that_are_other_bytes_are_found(subject: Subject) -> None:
    store, wanted = subject.store, object_ref("p", b"right" * 100)
    upload = await store.begin_upload(wanted)
    url = store.presign_part(wanted, upload, 1)
    await asyncio.to_thread(part_of, store, upload, 1, b"wrong" * 100, url=url)
    await store.complete_upload(wanted, upload)
    assert not await holds(store, wanted)
    with pytest.raises(ObjectCorrupt):
        await store.verify(wanted)


async def test_bytes_of_a_digest_that_nobody_knew_come_to_their_place(subject: Subject) -> None:
    store, parts = subject.store, {1: os.urandom(6 << 20), 2: b"the end"}
    staged = await store.begin_staged("p")
    for number in (2, 1):
        url = store.presign_staged("p", staged, number)
        await asyncio.to_thread(part_of, store, staged, number, parts[number], url=url)
    adopted = await store.adopt_staged("p", staged, "x/y")
    assert adopted == object_ref("p", parts[1] + parts[2], "x/y")
    assert await store.get(adopted) == parts[1] + parts[2]
    with pytest.raises(NotFound):
        await store.adopt_staged("p", staged)


@pytest.mark.parametrize("staged", ["", "x", "../../etc.x", "a" * 32, f"{'a' * 32}.", f"{'A' * 32}.x"])
async def test_no_other_word_is_the_id_of_an_upload(subject: Subject, staged: str) -> None:
    with pytest.raises(NotFound):
        subject.store.presign_staged("p", staged, 1)
    with pytest.raises(NotFound):
        await subject.store.adopt_staged("p", staged)


async def test_a_staged_upload_that_is_aborted_is_gone(subject: Subject) -> None:
    staged = await subject.store.begin_staged("p")
    await subject.store.abort_staged("p", staged)
    await subject.store.abort_staged("p", staged)
    with pytest.raises(NotFound):
        await subject.store.adopt_staged("p", staged)
