"""A process from start to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace_kit.app import Application
from headrace_kit.auth import Tokens
from headrace_kit.errors import Unavailable
from headrace_kit.probes import Probes
from headrace_kit.rpc import Server
from headrace_kit.settings import ServiceSettings
from headrace_kit.testing import OPERATOR_CALLER, write_tokens


def environment(folder: Path) -> dict[str, str]:
    (folder / "token").write_text("mine")
    write_tokens(folder / "tokens.json", [OPERATOR_CALLER])
    return {
        "HEADRACE_DATA": str(folder),
        "HEADRACE_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "HEADRACE_GRPC_LISTEN": "127.0.0.1:0",
        "HEADRACE_METRICS_LISTEN": "127.0.0.1:0",
        "HEADRACE_TOKEN_FILE": str(folder / "token"),
        "HEADRACE_TOKENS_FILE": str(folder / "tokens.json"),
        "HEADRACE_S3_ENDPOINT": "http://127.0.0.1:1",
        "HEADRACE_S3_ACCESS_KEY": "key",
        "HEADRACE_S3_SECRET_KEY": "a-secret-key",
    }


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServiceSettings:
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return ServiceSettings()  # pyright: ignore[reportCallIssue]  # the fields come from the environment


async def get(port: int, target: str, method: str = "GET") -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body.decode()


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_probes_answer_what_they_are_asked() -> None:
    reasons: list[str] = []

    async def unready() -> list[str]:
        return reasons

    probes = Probes(unready)
    await probes.start("127.0.0.1:0")
    assert await get(probes.port, "/readyz") == (200, "ready\n")
    assert (await get(probes.port, "/healthz"))[0] == 200
    assert "headrace_rpc_in_flight" in (await get(probes.port, "/metrics?x=1"))[1]
    assert (await get(probes.port, "/etc/passwd"))[0] == 404
    assert (await get(probes.port, "/readyz", "POST"))[0] == 405
    reasons.append("the database is away")
    assert await get(probes.port, "/readyz") == (503, "the database is away\n")
    assert await get(probes.port, "/readyz", "HEAD") == (503, "")
    probes.close()


async def test_it_is_ready_when_its_checks_hold_and_health_follows(settings: ServiceSettings) -> None:
    failing = [Unavailable("the database is away")]

    async def check() -> str:
        if failing:
            raise failing[0]
        return ""

    server = Server("test", listen="127.0.0.1:0", tokens=Tokens(settings.tokens_file), servicers=[])
    application, stop = Application("test", settings, server, checks=[check]), asyncio.Event()
    running = asyncio.create_task(application.run(stop))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)

        async def status() -> Any:
            return (await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)).status

        assert await status() == health_pb2.HealthCheckResponse.NOT_SERVING
        await until(lambda: _says(application, ["the database is away"]))
        failing.clear()

        async def serves() -> bool:
            return bool(await status() == health_pb2.HealthCheckResponse.SERVING)

        await until(serves)
        stop.set()
        await running
    assert await application.unready() == ["not started, or stopping"]


async def _says(application: Application, reasons: list[str]) -> bool:
    return await application.unready() == reasons


async def test_parts_stop_in_order(settings: ServiceSettings) -> None:
    order: list[str] = []

    async def task() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            order.append("task")

    async def close(name: str) -> None:
        order.append(name)
        raise Unavailable("a close that fails does not keep the others from closing")

    application, stop = Application("test", settings, tasks={"work": task}), asyncio.Event()
    application.close += [lambda: close("channels"), lambda: close("pool")]
    running = asyncio.create_task(application.run(stop))
    await until(lambda: _says(application, []))
    stop.set()
    await running
    assert order == ["task", "channels", "pool"]


@pytest.mark.parametrize(("error", "told"), [(ValueError("broken"), "broken"), (None, "the task work ended")])
async def test_the_end_of_a_task_ends_the_process(
    settings: ServiceSettings, error: Exception | None, told: str
) -> None:
    closed: list[bool] = []

    async def task() -> None:
        if error is not None:
            raise error

    async def close() -> None:
        closed.append(True)

    application = Application("test", settings, tasks={"work": task}, close=[close])
    with pytest.raises((ValueError, RuntimeError), match=told):
        await application.run(asyncio.Event())
    assert closed == [True]


async def test_a_taken_port_is_a_clear_error(settings: ServiceSettings) -> None:
    probes = Probes(lambda: asyncio.sleep(0, []))
    await probes.start("127.0.0.1:0")
    taken = settings.model_copy(update={"metrics_listen": f"127.0.0.1:{probes.port}"})
    with pytest.raises(Unavailable, match="can not be listened on"):
        await Application("test", taken).run(asyncio.Event())
    probes.close()


PROGRAM = """
import asyncio, sys
from headrace_kit.app import Application, run_service
from headrace_kit.errors import Unavailable
from headrace_kit.settings import ServiceSettings, load

async def build():
    if "slow" in sys.argv:
        print("building", flush=True)
        await asyncio.Event().wait()
    if "broken" in sys.argv:
        raise Unavailable("no database at postgresql://me:hunter2@127.0.0.1:1/x")
    return Application("test", settings)

settings = load(ServiceSettings)
run_service("test", settings, build)
"""


async def start(folder: Path, *arguments: str, **changes: str) -> asyncio.subprocess.Process:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    env: Mapping[str, str] = {**kept, **environment(folder), **changes}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        *arguments,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize(("argument", "sign"), [("", b'"ready"'), ("slow", b"building")])
async def test_sigterm_ends_a_process_with_status_0(tmp_path: Path, argument: str, sign: bytes) -> None:
    process = await start(tmp_path, argument)
    assert process.stdout is not None
    while sign not in (line := await process.stdout.readline()):
        assert line
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0


async def test_a_known_failure_is_one_line_without_secrets(tmp_path: Path) -> None:
    process = await start(tmp_path, "broken")
    out, err = await process.communicate()
    assert process.returncode == 1
    assert b"no database at postgresql://me:[redacted]@127.0.0.1:1/x" in out
    assert b"hunter2" not in out + err
    assert b"Traceback" not in out + err


async def test_all_faults_of_the_settings_are_told_at_once(tmp_path: Path) -> None:
    process = await start(
        tmp_path,
        HEADRACE_GRPC_LISTEN="nowhere",
        HEADRACE_S3_ENDPOINT="s3",
        HEADRACE_KAFKA_BOOTSTRAP="a:1,b",
        HEADRACE_DRAIN_S="-1",
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert err.decode().splitlines()[0] == "4 settings are wrong:"
    for name in ("GRPC_LISTEN", "S3_ENDPOINT", "KAFKA_BOOTSTRAP", "DRAIN_S"):
        assert f"HEADRACE_{name}: " in err.decode()
    assert b"a-secret-key" not in err
