"""The Merkle tree against RFC 6962's definition, its known answers, and proofs that were tampered with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.merkle import Range, Subtree, consistency_proof, inclusion_proof, peaks_of, root_of, root_over
from headrace.verifier import EMPTY_ROOT, consistent, root_from_inclusion

# Inputs and roots of the reference vectors that Certificate Transparency's implementations of RFC 6962 share.
INPUTS = [bytes.fromhex(each) for each in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                                           "606162636465666768696a6b6c6d6e6f")]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
sizes = st.integers(0, 300)


def leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def leaves(count: int) -> list[bytes]:
    return [leaf(str(index).encode()) for index in range(count)]


def mth(hashes: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, word for word."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return hashlib.sha256(b"\x01" + mth(hashes[:split]) + mth(hashes[split:])).digest()


def subtrees(hashes: Sequence[bytes]) -> Subtree:
    return lambda level, index: mth(hashes[index << level : (index + 1) << level])


@pytest.mark.parametrize("size", range(1, 9))
def test_the_reference_roots(size: int) -> None:
    tree = Range()
    tree.extend(map(leaf, INPUTS[:size]))

    assert tree.root().hex() == ROOTS[size - 1]


def test_the_root_of_nothing() -> None:
    assert Range().root() == EMPTY_ROOT == hashlib.sha256(b"").digest()


@pytest.mark.parametrize(
    ("index", "size", "path"),
    [
        (0, 1, []),
        (0, 8, ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"]),
        (5, 8, ["bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"]),
        (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    ],
)  # fmt: skip
def test_the_reference_paths(index: int, size: int, path: list[str]) -> None:
    hashes = [leaf(each) for each in INPUTS[:size]]

    assert [each.hex() for each in inclusion_proof(index, size, subtrees(hashes))] == path


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        (1, 1, []),
        (1, 8, ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"]),
        (6, 8, ["0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"]),
        (2, 5, ["5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"]),
    ],
)  # fmt: skip
def test_the_reference_proofs_of_growth(old: int, new: int, path: list[str]) -> None:
    proof = consistency_proof(old, new, subtrees([leaf(each) for each in INPUTS[:new]]))

    assert [each.hex() for each in proof] == path
    assert consistent(old, new, bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[new - 1]), proof)


@given(sizes)
def test_a_growing_tree_has_the_root_of_the_definition(size: int) -> None:
    hashes = leaves(size)
    tree = Range()
    tree.extend(hashes)

    assert tree.root() == mth(hashes) == root_of(size, subtrees(hashes)) == root_over(hashes)
    assert tree.peaks == [subtrees(hashes)(level, index) for level, index in peaks_of(size)]


@given(sizes, sizes)
def test_a_tree_goes_on_from_its_peaks(first: int, more: int) -> None:
    hashes = leaves(first + more)
    begun = Range()
    begun.extend(hashes[:first])

    resumed = Range(begun.size, begun.peaks)
    resumed.extend(hashes[first:])

    assert resumed.root() == mth(hashes)


@given(st.lists(st.integers(0, 40), max_size=8))
def test_every_node_is_told_once_when_it_is_complete(chunks: list[int]) -> None:
    hashes = leaves(sum(chunks))
    tree, told = Range(), list[tuple[int, int]]()
    for chunk in chunks:
        for row in tree.extend(hashes[tree.size : tree.size + chunk]):
            places = [(row.level, row.first + offset) for offset in range(len(row.hashes))]
            assert list(row.hashes) == [subtrees(hashes)(*place) for place in places]
            told += places

    assert len(set(told)) == len(told) == tree.size - tree.size.bit_count()


@given(st.data(), st.integers(1, 300))
def test_every_leaf_is_proved_and_no_other(data: st.DataObject, size: int) -> None:
    hashes = leaves(size)
    index = data.draw(st.integers(0, size - 1))
    path = inclusion_proof(index, size, subtrees(hashes))

    assert root_from_inclusion(index, size, hashes[index], path) == mth(hashes)
    assert len(path) <= (size - 1).bit_length()
    assert root_from_inclusion(index, size, leaf(b"forged"), path) != mth(hashes)
    assert root_from_inclusion(index, size, hashes[index], [*path, bytes(32)]) is None
    assert not path or root_from_inclusion(index, size, hashes[index], path[:-1]) != mth(hashes)
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        assert root_from_inclusion(other, size, hashes[index], path) != mth(hashes)


@given(st.data(), sizes)
def test_growth_is_proved_and_a_rewritten_past_is_not(data: st.DataObject, new: int) -> None:
    hashes = leaves(new)
    old = data.draw(st.integers(0, new))
    proof = consistency_proof(old, new, subtrees(hashes))
    old_root, new_root = mth(hashes[:old]), mth(hashes)

    assert consistent(old, new, old_root, new_root, proof)
    assert not consistent(old, new, leaf(b"forged"), new_root, proof)
    assert old in (0, new) or not consistent(old, new, old_root, leaf(b"forged"), proof)
    assert not consistent(old, new, old_root, new_root, [*proof, bytes(32)])
    assert not proof or not consistent(old, new, old_root, new_root, proof[:-1])
    if 0 < old < new:
        changed = data.draw(st.integers(0, old - 1))
        rewritten = [*hashes[:changed], leaf(b"rewritten"), *hashes[changed + 1 :]]
        forged = consistency_proof(old, new, subtrees(rewritten))
        assert not consistent(old, new, old_root, mth(rewritten), forged)


@pytest.mark.parametrize(("index", "size"), [(-1, 1), (1, 1), (0, 0)])
def test_there_is_no_proof_of_what_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="has no leaf"):
        inclusion_proof(index, size, subtrees(leaves(size)))
    assert root_from_inclusion(index, size, bytes(32), []) is None


def test_a_smaller_tree_does_not_begin_with_a_larger() -> None:
    with pytest.raises(ValueError, match="does not begin"):
        consistency_proof(3, 2, subtrees(leaves(3)))
    with pytest.raises(ValueError, match="peaks"):
        Range(3, [bytes(32)])
