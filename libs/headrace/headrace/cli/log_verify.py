"""``headrace log verify`` and ``headrace log prove``: the log as evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.log_export import progress_bar
from headrace.cli.output import Json, console, print_fields, print_json, print_table
from headrace.client import Client, connect
from headrace.connection import SERVICES, find
from headrace.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from headrace.events.event import chosen_services
from headrace.evidence.verifying import Verdict

if TYPE_CHECKING:
    from headrace.archive.verifying import RangeReport
    from headrace.export.ranges import LogRange

_KEY_HELP = "Key that signs, as name+id+base64, or a file of keys or one in PEM; may be repeated."
_ARCHIVE_HELP = "Leave out the files of the telemetry archive, which the monitor's log vouches for."
_AGAINST_HELP = "Checkpoints kept outside: a folder, a file, or `topic` for the Kafka topic; may be repeated."


def verify(
    start: Annotated[str, typer.Option("--from", help="First event: a time, or a position of one service.")] = "",
    end: Annotated[str, typer.Option("--to", help="First event no longer looked at: a time, or a position.")] = "",
    service: Annotated[list[str] | None, typer.Option(help="Only this service; may be repeated.")] = None,
    against: Annotated[list[str] | None, typer.Option(help=_AGAINST_HELP)] = None,
    key: Annotated[list[str] | None, typer.Option(help=_KEY_HELP)] = None,
    without_archive: Annotated[bool, typer.Option("--without-archive", help=_ARCHIVE_HELP)] = False,
    as_json: Json = False,
) -> None:
    """Verify that no event was changed, removed or moved; where one was, name it and end with status 1.

    Leaves and tree are made anew from what is stored now, and compared with every signed checkpoint.

    The platform's own checkpoints tell of damage, and of whoever has the database alone.

    Against whoever has the host, give --against checkpoints that left it in time, and their --key.

    Without --key, keys that were kept with the checkpoints count, else those that the services name.

    With --from, the look begins after the last checkpoint before it.

    Every file of the telemetry archive is read too, and one that is missing or altered is named.
    """
    from headrace.evidence import Kept, read_kept, verify_log
    from headrace.evidence.verifying import keys_of_platform
    from headrace.export import parse_bound, resolve
    from headrace.verifier import CanNotCheck, Key, keys_of

    connection = find()
    known = tuple(name for name in SERVICES if connection.addresses.get(name))
    services = chosen_services(service or None, SERVICES if service else known)
    hold_archive = _archive_check() if "monitor" in services and not without_archive else None
    first, after = parse_bound(start, name="from"), parse_bound(end, name="to")
    kept, found_keys = list[Kept](), list[Key]()
    for place in against or ():
        checkpoints, with_them = read_kept(place, connection)
        kept += checkpoints
        found_keys += with_them
    try:
        keys = keys_of(key) if key else found_keys
        verdicts = list[Verdict]()
        with connect(connection) as client, progress_bar() as bar:
            ranges = resolve(client, services, start=first, end=after)
            task = bar.add_task("events", total=sum(each.count for each in ranges))
            for wanted in ranges:
                verdict = verify_log(
                    client,
                    wanted,
                    keys=keys or keys_of_platform(client, wanted.service),
                    kept=kept,
                    advance=lambda count: bar.advance(task, count),
                )
                if wanted.service == "monitor" and hold_archive is not None:
                    verdict = _with_archive(verdict, hold_archive(client, wanted))
                verdicts.append(verdict)
    except CanNotCheck as error:
        raise FailedPrecondition(str(error), reason="CAN_NOT_CHECK") from error
    if as_json:
        print_json([each.as_dict() for each in verdicts])
    else:
        _print(verdicts, trusted="given" if key else "kept outside" if found_keys else "named by the services")
    if not all(each.sound for each in verdicts):
        raise typer.Exit(1)


def prove(
    event: Annotated[str, typer.Argument(help="Id of the event, or service:position such as registry:57.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File to make; standard output without.")] = None,
    size: Annotated[
        int, typer.Option(min=0, help="Prove it against the checkpoint of this size; 0 for the newest.")
    ] = 0,
    against: Annotated[str, typer.Option(help="Prove it against the first that covers it of those kept there.")] = "",
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a checkpoint that covers it.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Write proof that an event is in the log: a file that is checked without the platform.

    `python verifier.py FILE --key KEY` checks it, with headrace/verifier.py of this package and nothing else.

    Take the key from where it was kept, not from the platform.
    """
    from headrace.evidence import prove as fetch
    from headrace.evidence import read_kept

    if size and against:
        raise InvalidArgument("give --size or --against, not both")
    connection = find()
    with connect(connection) as client:
        proof = fetch(client, event, size=size, wait_s=wait)
        if against:
            kept, _ = read_kept(against, connection)
            origin, position = proof.entry.source, proof.entry.position
            sizes = [each.checkpoint.size for each in kept if each.checkpoint.origin == origin]
            covering = [each for each in sizes if each >= position]
            if not covering:
                message = f"{against} holds no checkpoint of {origin} that covers position {position}"
                raise FailedPrecondition(message, field="against", reason="NOT_SIGNED_YET")
            proof = fetch(client, event, size=min(covering), wait_s=wait)
    text = proof.to_json()
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise AlreadyExists(f"{out} exists: a proof is never written over", field="out") from None
    entry, checkpoint = proof.entry, proof.checkpoint
    if as_json:
        told = {"event_id": entry.event_id, "type": entry.type, "source": entry.source, "position": entry.position}
        print_json({**told, "size": checkpoint.size, "made_at": checkpoint.made_at, "proof": str(out)})
        return
    print_fields(
        entry.type,
        [
            ("event", entry.event_id),
            ("log", f"{entry.source}, position {entry.position} of {checkpoint.size}"),
            ("signed", checkpoint.made_at),
            ("proof", out),
        ],
    )


def _archive_check() -> Callable[[Client, LogRange], Iterator[RangeReport]]:
    """What holds the archive to a part of the monitor's log."""
    try:
        from headrace.archive.verifying import verify_archive
    except ImportError as error:
        message = "the archive of telemetry needs pyarrow: install headrace[export], or give --without-archive"
        raise FailedPrecondition(message, reason="EXTRAS_MISSING") from error
    return lambda client, wanted: verify_archive(client, first=wanted.first, last=wanted.last)


def _with_archive(verdict: Verdict, reports: Iterator[RangeReport]) -> Verdict:
    began = time.monotonic()
    found = list(reports)
    return verdict.with_archive(found, seconds=time.monotonic() - began)


def _print(verdicts: list[Verdict], *, trusted: str) -> None:
    rows = [
        (
            each.service,
            f"{each.first}-{each.last}" if each.entries else "",
            each.entries,
            each.checkpoints,
            each.signed_to,
            "sound" if each.sound else f"BAD from position {each.first_bad}" if each.first_bad else "BAD",
        )
        for each in verdicts
    ]
    columns = ("service", "positions", "events", "checkpoints", "signed to", "verdict")
    print_table(f"logs (keys {trusted})", columns, rows, empty="No service is known.")
    for verdict in verdicts:
        for problem in verdict.problems:
            where = f"{problem.first}-{problem.last}" if problem.last > problem.first else str(problem.first or "")
            place = f"position {where}" if where else "no position"
            console.print(f"{verdict.service}, {place}: {problem.kind}: {problem.cause}", soft_wrap=True)
    ranges = sum(each.archived_ranges for each in verdicts)
    events, seconds = sum(each.entries for each in verdicts), sum(each.seconds for each in verdicts)
    archive = f" and {ranges} archived ranges" if ranges else ""
    console.print(f"{events} events{archive} in {seconds:.1f} s", soft_wrap=True)
