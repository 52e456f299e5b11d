"""``headrace up`` in the foreground: progress, addresses, restarts as they happen, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from headrace_local import external
from headrace_local.stack import Stack
from headrace_local.supervisor import Notice


@dataclass(frozen=True, slots=True)
class Plan:
    """What the caller asked for."""

    data: Path
    only: tuple[str, ...] | None = None
    """``None``: everything."""
    port_base: int | None = None


async def run(plan: Plan, console: Console, *, on_ready: Callable[[], None] | None = None) -> None:
    """Run the stack until SIGINT or SIGTERM, then stop it in order.

    When all is ready ``on_ready`` is called, which then speaks of the console's link; without it the link is printed.

    Raises:
        LocalError: it could not be started; nothing runs any more.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with jar_progress(console) as progress:
        stack = Stack(
            plan.data,
            only=plan.only,
            external=external.from_environment(os.environ),
            port_base=plan.port_base,
            report=lambda notice: _print_notice(console, notice),
            jar_progress=progress,
        )
        started_at = time.monotonic()
        console.print(f"starting {', '.join(stack.names_here)} ...", highlight=False)
        if not await _start_unless_stopped(stack, stop):
            console.print("stopped before it was ready")
            return
    try:
        _print_ready(console, stack, time.monotonic() - started_at, console_link=on_ready is None)
        if on_ready is not None:
            on_ready()
        await stop.wait()
    finally:
        console.print("stopping in order ...")
        await stack.stop()
        console.print(f"stopped; the data stays in {escape(str(plan.data))}")


@contextlib.contextmanager
def jar_progress(console: Console) -> Generator[Callable[[int, int], None]]:
    """Yield a callback that shows a bar while jars are fetched; nothing is shown when none are."""
    with contextlib.ExitStack() as stack:
        bar = Progress(
            TextColumn("fetching Kafka's jars, once"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        task = bar.add_task("jars", total=None)

        def show(done: int, total: int) -> None:
            if not bar.live.is_started:
                stack.enter_context(bar)
            bar.update(task, completed=done, total=total)

        yield show


async def _start_unless_stopped(stack: Stack, stop: asyncio.Event) -> bool:
    start = asyncio.create_task(stack.start())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({start, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if start.done():
        start.result()
        return True
    start.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await start
    return False


def _print_notice(console: Console, notice: Notice) -> None:
    style = "bold red" if notice.loud else "yellow"
    when = time.strftime("%H:%M:%S")
    console.print(f"{when} [{style}]{notice.part}[/] {escape(notice.text)}", highlight=False, soft_wrap=True)


def _print_ready(console: Console, stack: Stack, took_s: float, *, console_link: bool) -> None:
    for note in stack.notes:
        console.print(f"[yellow]note[/] {escape(note)}", highlight=False, soft_wrap=True)
    console.print(address_table(stack))
    console.print(f"ready in {took_s:.1f} s; data in {escape(str(stack.folder.path))}", highlight=False, soft_wrap=True)
    link = stack.console_link() if console_link else ""
    if link:
        console.print(f"console, once: [link={link}]{link}[/link]", highlight=False, soft_wrap=True)
    console.print("Ctrl-C stops everything in order")


def address_table(stack: Stack) -> Table:
    """Return a table of the parts, where they listen, and their logs."""
    table = Table("part", "address", "log", box=None, pad_edge=False)
    for name, item in stack.supervised.items():
        table.add_row(name, item.part.address, str(item.log.relative_to(stack.folder.path)))
    for name in sorted(stack.external.names):
        table.add_row(name, "yours", "")
    return table
