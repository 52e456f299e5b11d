"""A rebuild, and newer code that rebuilds, leave the log, its evidence and its index of causes as they are."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from headrace_kit.causes import fill, filling
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.rebuild import Comparison, Rebuild
from headrace_kit.tables import KIT_TABLES, Kind
from tests.integration.kit_rpc import test_evidence as signed
from tests.support.counters import LISTED, add, context, stream, whole_log

pytestmark = pytest.mark.timeout(120)
KEPT = replace(LISTED, tables=("counters",))
NEWER = replace(KEPT, revision=2)
TRUTH = tuple(table.name for table in KIT_TABLES if table.kind is Kind.TRUTH)

evidence = signed.evidence


async def truth(store: PostgresEventStore) -> dict[str, tuple[int, bytes]]:
    """Rows and digest of every table whose loss would be for good."""
    return {table: await (await Comparison.of(store.database, table)).digest(store.database) for table in TRUTH}


async def caused(store: PostgresEventStore, name: str, cause: UUID) -> None:
    await store.execute(
        KEPT,
        stream(name),
        context=replace(context(), causation_id=cause),
        request=StringValue(),
        decide=lambda _: [Int64Value(value=1)],
        respond=lambda state: state,
    )


async def test_a_log_verifies_after_a_rebuild_and_after_newer_code_took_over(evidence: signed.Evidence) -> None:
    store, cause = evidence.store, uuid4()
    for name in "abc":
        await caused(store, name, cause)
    await evidence.grow(300)
    before, log = await truth(store), await whole_log(store)

    assert (await Rebuild(store, [KEPT]).run(check=False)).swapped
    assert (await truth(store), await whole_log(store)) == (before, log)
    assert (await evidence.verify(against=True)).sound

    assert (await Rebuild(store, [NEWER]).run(check=False)).swapped
    assert await truth(store) == before
    await add(store, "a", 1, 2, aggregate=NEWER)
    await evidence.sign()
    verdict = await evidence.verify(against=True)
    assert (verdict.sound, verdict.signed_to, verdict.entries) == (True, 305, 305)


async def test_a_rebuild_while_causes_are_filled_in_changes_neither(evidence: signed.Evidence) -> None:
    store, cause = evidence.store, uuid4()
    for number in range(40):
        await caused(store, str(number % 7), cause)
    await evidence.sign()
    expected = await store.effects_of([cause])
    await evidence.tamper("UPDATE events SET causation_id = NULL")
    await evidence.tamper("UPDATE causes_filled SET until = 40")
    assert await fill(store.database, chunk=15) == 15

    report = await Rebuild(store, [KEPT]).run(check=False)

    assert [len(table.differences) for table in report.tables] == [0, 0]
    assert (await store.effects_of([cause]), await filling(store.database)) == (expected[:15], True)
    assert (await evidence.verify(against=True)).sound
    while await fill(store.database, chunk=15):
        pass
    assert (await store.effects_of([cause]), await filling(store.database)) == (expected, False)
    again = await Rebuild(store, [KEPT]).run(check=True)
    assert [table.sha256 for table in again.tables] == [table.sha256 for table in report.tables]
    assert (await evidence.verify(against=True)).sound
