"""A run as server-sent events, for scripts: what comes, where it goes on, what is refused, what a slow client gets."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2 as httpx
import pytest

import headrace
from headrace.api.tracking.v1 import resources_pb2 as runs
from headrace.api.tracking.v1.service_pb2 import LogOutputRequest
from headrace_gateway.watching import MOST_EACH
from tests.console.conftest import PARENT, Console

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    id: str
    data: Any


@pytest.fixture
async def client(console: Console) -> AsyncIterator[httpx.AsyncClient]:
    with console.operator() as operator:
        headers = {"Authorization": f"Bearer {operator.connection.token}"}
    async with httpx.AsyncClient(base_url=console.url, headers=headers, timeout=60) as opened:
        yield opened


async def events(answer: httpx.Response) -> AsyncIterator[Event]:
    """The events of a stream, by the rules of the HTML standard as far as they are used."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
        elif "data" in fields:
            yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}


def text_of(found: list[Event]) -> str:
    return "".join(chunk["text"] for each in found if each.kind == "output" for chunk in each.data["chunks"])


async def test_state_metrics_and_output_come_until_the_run_ends(client: httpx.AsyncClient) -> None:
    run = headrace.start_run("watched", capture_output=True)
    print("one")
    sys.stderr.write("two\n")
    run.log_metrics({"loss": 0.5, "lost": float("nan")}, step=1)
    run.flush()
    async with client.stream("GET", f"/api/v1/runs/{run.id}/watch") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        stream = events(answer)
        found = [await anext(stream)]
        while not any(each.kind == "status" for each in found) or text_of(found) != "one\ntwo\n":
            found.append(await anext(stream))
        run.log_metric("loss", 0.25, step=2)
        print("three")
        run.flush()
        while "three" not in text_of(found) or found[-1].kind != "status":
            found.append(await anext(stream))
        run.finish()
        found.extend([each async for each in stream])

    assert [chunk["stream"] for each in found if each.kind == "output" for chunk in each.data["chunks"]] == [
        "stdout",
        "stderr",
        "stdout",
    ]
    metrics: dict[str, Any] = {}
    for each in found:
        metrics |= each.data["metrics"] if each.kind == "metrics" else {}
    assert (metrics["loss"]["last"], metrics["loss"]["min"], metrics["loss"]["count"]) == (0.25, 0.25, 2)
    assert metrics["lost"]["last"] == "NaN"
    assert [each.data["status"] for each in found if each.kind == "status"][-1] == "FINISHED"
    assert found[-1].kind == "end"


async def test_a_stream_goes_on_where_it_broke_off(client: httpx.AsyncClient, console: Console) -> None:
    with headrace.start_run("resumed", capture_output=False) as run:
        run.flush()
        for place in range(3):
            _write(console, run.id, 1000 + place, f"line {place}\n".encode())
    async with client.stream("GET", f"/api/v1/runs/{run.id}/watch") as answer:
        whole = [each async for each in events(answer)]
    assert text_of(whole) == "line 0\nline 1\nline 2\n"

    headers = {"Last-Event-ID": "1000"}
    async with client.stream("GET", f"/api/v1/runs/{run.id}/watch", headers=headers) as answer:
        rest = [each async for each in events(answer)]
    assert text_of(rest) == "line 1\nline 2\n"
    assert {each.kind for each in rest} == {"output", "status", "end"}
    assert rest[-1].id == "1002"

    async with client.stream("GET", f"/api/v1/runs/{run.id}/watch", params={"last_bytes": 1}) as answer:
        assert text_of([each async for each in events(answer)]) == "line 2\n"


async def test_a_slow_client_gets_all_output_and_is_told_of_skipped_states(
    client: httpx.AsyncClient, console: Console
) -> None:
    run = headrace.start_run("slow", capture_output=False)
    run.flush()
    count, size = 256, 65536
    async with client.stream("GET", f"/api/v1/runs/{run.id}/watch") as answer:
        for place in range(count):
            content = f"{place:06d}".encode() + b"x" * (size - 6)
            await asyncio.to_thread(_write, console, run.id, 1000 + place, content)
            if place % 16 == 0:
                run.set_tags({"at": str(place)})
                run.flush()
        run.finish()
        found = [each async for each in events(answer)]

    chunks = [chunk for each in found if each.kind == "output" for chunk in each.data["chunks"]]
    assert [chunk["text"][:6] for chunk in chunks if not chunk["left_out_bytes"]] == [
        f"{int(chunk['time_us']) - 1000:06d}" for chunk in chunks if not chunk["left_out_bytes"]
    ]
    assert sum(chunk["left_out_bytes"] + len(chunk["text"]) for chunk in chunks) == count * size
    states = [each.data for each in found if each.kind == "status"]
    assert states[-1]["status"] == "FINISHED"
    assert sum(each["skipped"] for each in states) > 0


async def test_what_can_not_be_watched_is_refused_before_the_stream(client: httpx.AsyncClient) -> None:
    with headrace.start_run("refused", capture_output=False) as run:
        run.flush()
    path = f"/api/v1/runs/{run.id}/watch"
    absent = await client.get(f"/api/v1/runs/{uuid4()}/watch")
    assert (absent.status_code, absent.json()["reason"]) == (404, "NOT_FOUND")
    for refused in (
        await client.get(path, headers={"Last-Event-ID": "x"}),
        await client.get(path, params={"last_bytes": "-1"}),
        await client.get(path, params={"last_bytes": "99999999"}),
        await client.get("/api/v1/runs/nonsense/watch"),
    ):
        assert refused.status_code == 400
    stranger = await client.get(path, headers={"Authorization": "Bearer nobody"})
    assert stranger.status_code == 401


async def test_a_client_has_so_many_streams_and_gets_them_back(client: httpx.AsyncClient) -> None:
    run = headrace.start_run("crowded", capture_output=False)
    run.flush()
    path = f"/api/v1/runs/{run.id}/watch"
    limits = httpx.Limits(max_connections=MOST_EACH + 8)
    async with httpx.AsyncClient(base_url=client.base_url, headers=client.headers, timeout=60, limits=limits) as many:
        held = [await many.send(many.build_request("GET", path), stream=True) for _ in range(MOST_EACH)]
        assert {each.status_code for each in held} == {200}
        full = await many.get(path)
        assert (full.status_code, full.json()["reason"], full.headers["retry-after"]) == (429, "WATCHES_FULL", "5")
        await held.pop().aclose()
        async with asyncio.timeout(30):
            while True:
                again = await many.send(many.build_request("GET", path), stream=True)
                await again.aclose()
                if again.status_code == 200:
                    break
        for each in held:
            await each.aclose()
    run.finish()


def _write(console: Console, run: str, time_us: int, content: bytes) -> None:
    chunk = runs.OutputChunk(time_us=time_us, stream=runs.OUTPUT_STREAM_STDOUT, content=content)
    with console.operator() as operator:
        operator.tracking.LogOutput(
            LogOutputRequest(command_id=str(uuid4()), run=f"{PARENT}/runs/{run}", chunks=[chunk])
        )
