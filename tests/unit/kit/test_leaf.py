"""Golden bytes: what these tests pin down, no release may change."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from headrace_kit.leaf import leaf_bytes, leaf_hash
from tests.support.counters import NOW

GOLDEN = (
    "010000001168656164726163652f72656769737472790000000800000000000000070000001001890a5dac967b1ab2c3d4e5"
    "f6a7b8c90000001970726f6a656374732f64656661756c742f6d6f64656c732f6d0000000800000000000000030000002468"
    "656164726163652e72656769737472792e76312e56657273696f6e50726f6d6f746564000000080006475ef6574f35000000"
    "080006475ef6574f36000000080006475ef65c358000000008019c1d62a9f20001000000120a10706572736f6e732f6f7065"
    "7261746f72000000020801"
)
GOLDEN_HASH = "ead761717f52cc80cd8e9d21c9d8ab969cb42405eb44c671b67f621ed7fe2735"


def golden_leaf() -> bytes:
    return leaf_bytes(
        source="headrace/registry",
        position=7,
        event_id=UUID("01890a5d-ac96-7b1a-b2c3-d4e5f6a7b8c9"),
        stream_id="projects/default/models/m",
        version=3,
        type="headrace.registry.v1.VersionPromoted",
        occurred_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        recorded_at=datetime(2026, 1, 2, 3, 4, 5, 678902, tzinfo=UTC),
        sequenced_at=datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC),
        hlc=116_000_000_000_000_001,
        meta=b"\x0a\x10persons/operator",
        data=b"\x08\x01",
    )


def test_leaf_bytes_are_those_of_version_1() -> None:
    leaf = golden_leaf()

    assert leaf.hex() == GOLDEN
    assert leaf_hash(leaf).hex() == GOLDEN_HASH


texts = st.text(max_size=8)


fields = st.tuples(texts, texts, st.binary(max_size=8), st.binary(max_size=8))


@given(fields, fields)
def test_fields_never_run_together(one: tuple[str, str, bytes, bytes], other: tuple[str, str, bytes, bytes]) -> None:
    assert (_leaf(*one) == _leaf(*other)) == (one == other)


def _leaf(source: str, stream: str, meta: bytes, data: bytes) -> bytes:
    return leaf_bytes(
        source=source,
        position=1,
        event_id=UUID(int=0),
        stream_id=stream,
        version=1,
        type="t",
        occurred_at=NOW,
        recorded_at=NOW,
        sequenced_at=NOW,
        hlc=1,
        meta=meta,
        data=data,
    )
