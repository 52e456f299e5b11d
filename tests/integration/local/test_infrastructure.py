"""The fixtures other tests stand on: real servers, and nothing shared between tests."""

from __future__ import annotations

import asyncio
import io
import zipfile

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from headrace_local.jars import cache_home, ensure, lock_file, read_lock
from headrace_local.s3 import ObjectStoreAddress
from headrace_local.testing import FreshDatabase, Infrastructure, Topics
from headrace_local.topics import TOPICS


async def test_owner_migrates_and_service_role_may_only_what_it_was_granted(database: FreshDatabase) -> None:
    owner = await asyncpg.connect(database.migration_dsn)
    await owner.execute("CREATE TABLE log (id int)")
    await owner.execute(f"GRANT SELECT, INSERT ON log TO {database.service_role}")
    await owner.close()

    service = await asyncpg.connect(database.service_dsn)
    await service.execute("INSERT INTO log VALUES (1)")
    assert await service.fetchval("SELECT count(*) FROM log") == 1
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute("DELETE FROM log")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute("CREATE TABLE mine (id int)")
    await service.close()


async def test_service_role_cannot_enter_another_database(
    database: FreshDatabase, infrastructure: Infrastructure
) -> None:
    with infrastructure.database() as other:
        server, _, _ = database.service_dsn.rpartition("/")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(f"{server}/{other.name}")


async def test_records_come_back_from_a_fresh_topic(topics: Topics) -> None:
    name = await topics.create("events", partitions=2)
    producer = AIOKafkaProducer(bootstrap_servers=topics.bootstrap)
    await producer.start()
    await producer.send_and_wait(name, b"value", key=b"key")
    await producer.stop()

    consumer = AIOKafkaConsumer(name, bootstrap_servers=topics.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    record = await consumer.getone()
    await consumer.stop()

    assert (record.key, record.value) == (b"key", b"value")


async def test_the_platforms_topics_exist_with_their_partitions(infrastructure: Infrastructure) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=infrastructure.addresses.kafka_bootstrap)
    await admin.start()
    described = await admin.describe_topics([topic.name for topic in TOPICS])
    await admin.close()

    assert {item["topic"]: len(item["partitions"]) for item in described} == {t.name: t.partitions for t in TOPICS}


def test_objects_come_back_from_a_fresh_bucket(bucket: ObjectStoreAddress) -> None:
    client = bucket.client()
    client.put_object(bucket.bucket, "folder/object", io.BytesIO(b"bytes"), 5)

    assert client.get_object(bucket.bucket, "folder/object").read() == b"bytes"


async def test_a_killed_broker_comes_back_with_what_it_acknowledged(
    topics: Topics, infrastructure: Infrastructure
) -> None:
    name = await topics.create("kept", partitions=1)
    producer = AIOKafkaProducer(bootstrap_servers=topics.bootstrap, acks="all")
    await producer.start()
    await producer.send_and_wait(name, b"before the kill")
    await producer.stop()

    killed = infrastructure.kill("kafka")
    await asyncio.to_thread(infrastructure.wait_ready, "kafka", other_than=killed, within_s=15)

    consumer = AIOKafkaConsumer(name, bootstrap_servers=topics.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    record = await consumer.getone()
    await consumer.stop()
    assert record.value == b"before the kill"


async def test_a_killed_server_comes_back_with_its_data(
    database: FreshDatabase, infrastructure: Infrastructure
) -> None:
    connection = await asyncpg.connect(database.migration_dsn)
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS value")
    connection.terminate()

    killed = infrastructure.kill("postgres")
    await asyncio.to_thread(infrastructure.wait_ready, "postgres", other_than=killed, within_s=5)

    connection = await asyncpg.connect(database.migration_dsn)
    assert await connection.fetchval("SELECT value FROM kept") == 42
    await connection.close()


def test_jars_with_machine_code_have_it_for_both_kinds_of_machine() -> None:
    found: dict[str, set[str]] = {}
    for jar in ensure(read_lock(lock_file()), cache=cache_home()):
        code = {name.lower() for name in zipfile.ZipFile(jar).namelist() if name.endswith(".so")}
        if code:
            found[jar.name] = code

    assert len(found) == 3
    for code in found.values():
        assert any("linux/aarch64/" in each for each in code)
        assert any("linux/amd64/" in each or "linux/x86_64/" in each for each in code)
