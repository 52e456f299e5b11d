"""What runs wrote, on real PostgreSQL: in order, once, bounded at both ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import uuid4

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import OUTPUT_STREAM_STDERR, OUTPUT_STREAM_STDOUT, OutputChunk
from headrace_tracking import domain
from headrace_tracking.outputs import BEGINNING_BYTES, END_BYTES, SLACK_BYTES, OutputStore
from headrace_tracking.store import RUN
from tests.support.tracking import Tracking, context

CHUNK = 60_000


def chunk(number: int, content: bytes = b"", left_out: int = 0) -> OutputChunk:
    stream = OUTPUT_STREAM_STDERR if number % 3 == 0 else OUTPUT_STREAM_STDOUT
    return OutputChunk(time_us=number, stream=stream, content=content or b"%d\n\x00" % number, left_out_bytes=left_out)


async def everything(outputs: OutputStore, run: str) -> list[OutputChunk]:
    found: list[OutputChunk] = []
    while page := await outputs.read(run, after_us=found[-1].time_us if found else 0):
        found += page
    return found


async def test_what_was_written_is_read_as_it_was_and_a_repeat_adds_nothing(tracking: Tracking) -> None:
    outputs, run, other = OutputStore(tracking.database), await tracking.start(1), await tracking.start(2)
    given = [chunk(number) for number in range(1, 40)]
    assert await outputs.append(run, given[:20]) == 20
    assert await outputs.append(run, given[10:]) == 19
    assert await outputs.append(other, given[:1]) == 1
    assert await outputs.read(run) == given
    assert await outputs.read(run, after_us=30) == given[30:]
    assert await outputs.last(run, most_bytes=1) == given[-1:]
    assert await outputs.read(run, most_bytes=1) == given[:1]
    assert await outputs.read(run, after_us=39) == []


async def test_a_run_that_is_not_in_use_takes_nothing(tracking: Tracking) -> None:
    outputs, run = OutputStore(tracking.database), await tracking.start()
    assert await outputs.append(f"projects/default/runs/{uuid4()}", [chunk(1)]) is None
    command, request = context(), service.DeleteRunRequest(run=run)
    await tracking.store.execute(
        RUN,
        run,
        context=command,
        request=request,
        decide=lambda state: domain.decide_delete(state, run, command),
        respond=lambda _: service.DeleteRunResponse(),
    )
    assert await outputs.append(run, [chunk(1)]) is None
    assert await outputs.read(run) == []


async def test_of_a_hundred_megabytes_the_ends_are_kept_and_the_rest_is_counted(tracking: Tracking) -> None:
    outputs, run = OutputStore(tracking.database), await tracking.start()
    content = b"x" * CHUNK
    total = 100 * 1024 * 1024 // CHUNK
    for first in range(1, total + 1, 16):
        given = [chunk(number, content) for number in range(first, min(first + 16, total + 1))]
        assert await outputs.append(run, given) == len(given)
        stored = await tracking.database.fetchval(
            "SELECT sum(octet_length(content)) FROM run_output WHERE run = $1", run
        )
        assert stored <= BEGINNING_BYTES + END_BYTES + SLACK_BYTES + 2 * 16 * CHUNK
    found = await everything(outputs, run)
    times = [each.time_us for each in found]
    assert (times[0], times[-1]) == (1, total)
    assert times == sorted(times)
    kept = sum(len(each.content) for each in found)
    assert kept >= BEGINNING_BYTES + END_BYTES - CHUNK
    assert kept + sum(each.left_out_bytes for each in found) == total * CHUNK
    assert len([each for each in found if each.left_out_bytes]) == 1
    counted = await tracking.database.fetchval("SELECT size_bytes FROM run_output_sizes WHERE run = $1", run)
    assert counted == kept


async def test_calls_at_once_are_counted_once(tracking: Tracking) -> None:
    outputs, run = OutputStore(tracking.database), await tracking.start()

    async def log(numbers: Sequence[int]) -> int | None:
        return await outputs.append(run, [chunk(number) for number in numbers])

    counts = await asyncio.gather(*(log(range(first, first + 10)) for first in range(1, 101, 5)))
    found = await everything(outputs, run)
    assert sum(count or 0 for count in counts) == len(found) == 105
    counted = await tracking.database.fetchval("SELECT size_bytes FROM run_output_sizes WHERE run = $1", run)
    assert counted == sum(len(each.content) for each in found)
