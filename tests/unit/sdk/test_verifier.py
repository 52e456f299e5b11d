"""The one-file verifier: known answers, every way a proof can be forged, and what it says of it."""

from __future__ import annotations

import ast
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from headrace import verifier
from headrace.merkle import Range, inclusion_proof
from headrace.verifier import (
    CanNotCheck,
    Checkpoint,
    Entry,
    Key,
    NotProved,
    Proof,
    checkpoints_in,
    keys_of,
    leaf_hash,
    notes_in,
    require_kept,
    verifies,
    verifies_by_openssl,
)
from headrace_kit.leaf import leaf_bytes
from headrace_kit.notary import Signer
from tests.support.counters import NOW, SOURCE

# A note and its key from the documentation of golang.org/x/mod/sumdb/note.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
SIZE = 11
PROVED = 7
"""Index of the entry that is proved: position 8."""


def entry_bytes(position: int, *, source: str = SOURCE, data: bytes = b"\x08\x01") -> bytes:
    return leaf_bytes(
        source=source,
        position=position,
        event_id=UUID(int=position),
        stream_id="projects/p/counters/ä",
        version=3,
        type="google.protobuf.Int64Value",
        occurred_at=NOW,
        recorded_at=datetime(1969, 12, 31, tzinfo=UTC),
        sequenced_at=NOW,
        hlc=-5,
        meta=b"\x0a\x10persons/operator",
        data=data,
    )


LEAVES = [entry_bytes(position) for position in range(1, SIZE + 1)]


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer(SOURCE, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


@pytest.fixture
def proof(signer: Signer) -> Proof:
    hashes = [leaf_hash(each) for each in LEAVES]
    tree = Range()
    tree.extend(hashes)

    def subtree(level: int, place: int) -> bytes:
        part = Range()
        part.extend(hashes[place << level : (place + 1) << level])
        return part.root()

    path = inclusion_proof(PROVED, SIZE, subtree)
    return Proof(LEAVES[PROVED], path, signer.sign(SIZE, tree.root(), NOW))


@pytest.mark.parametrize("check", [verifies, verifies_by_openssl])
def test_signatures_of_signed_notes(check: Callable[[bytes, bytes, bytes], bool]) -> None:
    key, signature = Key.parse(GO_KEY), b64decode(GO_SIGNATURE)

    assert str(key) == GO_KEY
    assert signature[:4] == key.id("PeterNeumann")
    assert check(key.public, GO_TEXT.encode(), signature[4:])
    assert not check(key.public, GO_TEXT.encode() + b" ", signature[4:])
    assert not check(key.public, GO_TEXT.encode(), signature[4:-1] + b"\x00")
    assert not check(key.public, GO_TEXT.encode(), signature[4:-1])


def test_the_file_needs_the_standard_library_alone() -> None:
    tree = ast.parse(Path(verifier.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    assert foreign == {"cryptography"}


def test_a_checkpoint_is_a_signed_note_of_three_lines_and_a_time(signer: Signer) -> None:
    root = bytes(range(32))
    checkpoint = signer.sign(5, root, NOW)
    text, _, signatures = checkpoint.note.partition("\n\n")

    assert text == f"{SOURCE}\n5\n{b64encode(root).decode()}\ntime 2026-03-01T12:00:00.000000Z"
    assert signatures.startswith(f"\u2014 {SOURCE} ")
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == (SOURCE, 5, root)
    assert checkpoint.signer([Key.parse(GO_KEY), signer.key]) == signer.key


def test_a_proof_says_what_happened_and_survives_its_file(proof: Proof, signer: Signer) -> None:
    again = Proof.from_json(proof.to_json())
    entry, key = again.check([signer.key])

    assert again == proof
    assert key == signer.key
    assert (entry.source, entry.position, entry.event_id) == (SOURCE, 8, str(UUID(int=8)))
    assert (entry.stream_id, entry.version, entry.type) == ("projects/p/counters/ä", 3, "google.protobuf.Int64Value")
    assert (entry.occurred_at, entry.recorded_at) == (NOW, datetime(1969, 12, 31, tzinfo=UTC))
    assert (entry.hlc, entry.actor, entry.data) == (-5, "persons/operator", b"\x08\x01")


def forged(proof: Proof, signer: Signer) -> dict[str, Proof]:
    other = Signer(SOURCE, Ed25519PrivateKey.from_private_bytes(bytes(32)))
    elsewhere = Signer("headrace/registry", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
    root, size = proof.checkpoint.root, proof.checkpoint.size
    note = proof.checkpoint.note
    return {
        "another event": replace(proof, leaf=entry_bytes(8, data=b"\x08\x02")),
        "another position": replace(proof, leaf=LEAVES[6]),
        "a position beyond": replace(proof, leaf=entry_bytes(SIZE + 1)),
        "a shorter path": replace(proof, path=proof.path[:-1]),
        "a longer path": replace(proof, path=[*proof.path, bytes(32)]),
        "a changed path": replace(proof, path=[bytes(32), *proof.path[1:]]),
        "another root": replace(proof, checkpoint=signer.sign(size, bytes(32), NOW)),
        "another size": replace(proof, checkpoint=signer.sign(size + 7, root, NOW)),
        "another key": replace(proof, checkpoint=other.sign(size, root, NOW)),
        "another log": replace(proof, checkpoint=elsewhere.sign(size, root, NOW)),
        "a later time": replace(proof, checkpoint=Checkpoint.parse(note.replace("time 2026", "time 2027"))),
    }


def test_no_forged_proof_holds(proof: Proof, signer: Signer) -> None:
    keys = [signer.key, Key("headrace/registry", signer.key.public)]
    for what, forgery in forged(proof, signer).items():
        with pytest.raises(NotProved):
            print(what, forgery.check(keys))


@pytest.mark.parametrize(
    "change",
    [
        {"format": "headrace-proof-v2"},
        {"position": 9},
        {"event_id": str(UUID(int=9))},
        {"source": "headrace/registry"},
        {"path": b64encode(bytes(31)).decode()},
        {"path": 5},
        {"leaf_bytes": "not base64"},
        {"leaf_bytes": b64encode(LEAVES[7][:-1]).decode()},
        {"leaf_bytes": b64encode(b"\x02" + LEAVES[7][1:]).decode()},
        {"checkpoint": "none"},
    ],
)
def test_a_file_that_is_no_proof_is_none(proof: Proof, change: dict[str, Any]) -> None:
    plain = json.loads(proof.to_json())
    for text in (json.dumps({**plain, **change}), json.dumps({k: v for k, v in plain.items() if k not in change}), ""):
        with pytest.raises(NotProved):
            Proof.from_json(text)


def test_no_byte_of_a_leaf_may_change(proof: Proof, signer: Signer) -> None:
    for at in range(len(proof.leaf)):
        changed = bytearray(proof.leaf)
        changed[at] ^= 1
        with pytest.raises(NotProved):
            replace(proof, leaf=bytes(changed)).check([signer.key])


def test_a_proof_is_held_to_checkpoints_that_were_kept(proof: Proof, signer: Signer, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "deep").mkdir(parents=True)
    (kept / "deep" / "one").write_text(
        "a line\n\n" + signer.sign(4, bytes(32), NOW).note + "\n" + proof.checkpoint.note
    )
    (kept / "noise").write_bytes(b"\xff\x00")
    found = checkpoints_in(kept)

    assert [each.size for each in found] == [4, SIZE]
    require_kept(proof.checkpoint, found)
    with pytest.raises(NotProved, match="rewritten"):
        require_kept(signer.sign(SIZE, bytes(32), NOW), found)
    with pytest.raises(NotProved, match="no checkpoint of size 5"):
        require_kept(signer.sign(5, bytes(32), NOW), found)


def test_notes_are_found_among_other_text(signer: Signer) -> None:
    notes = [signer.sign(size, bytes(32), NOW).note for size in (1, 2, 3)]
    assert list(notes_in("\n".join(notes))) == notes
    assert list(notes_in("".join(notes))) == notes
    assert list(notes_in(f"# a comment\n\n{notes[0]}\ncut off\n5\n\n\n{notes[1]}")) == notes[:2]


def test_keys_are_given_in_many_ways(signer: Signer, tmp_path: Path) -> None:
    file, pem = tmp_path / "keys", tmp_path / "key.pem"
    file.write_text(f"# keys\n{signer.key}\n\n{GO_KEY}\n")
    public = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
    pem.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    assert keys_of([str(file)]) == [signer.key, Key.parse(GO_KEY)]
    assert keys_of([str(signer.key)]) == [signer.key]
    [nameless] = keys_of([str(pem)])
    assert signer.sign(1, bytes(32), NOW).signer([nameless]) == nameless


@pytest.mark.parametrize(
    "given",
    ["", "nothing", "a+b", GO_KEY[:-1], GO_KEY.replace("c74f20a3", "c74f20a4"), GO_KEY.replace("Peter", "Paul"),
     "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"],
)  # fmt: skip
def test_what_is_no_key_is_refused(given: str) -> None:
    with pytest.raises(CanNotCheck):
        keys_of([given])


@pytest.mark.parametrize(
    ("changed", "status", "said"),
    [
        (lambda text: text, 0, "PROVED"),
        (lambda text: text.replace('"position": 8', '"position": 7'), 1, "NOT PROVED"),
        (None, 2, "can not check"),
    ],
)
def test_the_program_ends_with_what_it_found(
    proof: Proof,
    signer: Signer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    changed: Callable[[str], str] | None,
    status: int,
    said: str,
) -> None:
    file = tmp_path / "proof.json"
    if changed is not None:
        file.write_text(changed(proof.to_json()))

    assert verifier.main([str(file), "--key", str(signer.key)]) == status
    out, err = capsys.readouterr()
    assert said in (err if status else out)
    assert verifier.main([str(file), "--key", str(signer.key), "--json"]) == status
    assert json.loads(capsys.readouterr().out)["proved"] is {0: True, 1: False, 2: None}[status]


def test_without_anything_that_checks_signatures_nothing_is_proved(
    proof: Proof, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    assert proof.check([signer.key])[1] == signer.key  # by openssl
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CanNotCheck, match="openssl"):
        proof.check([signer.key])


def test_an_entry_is_read_as_it_was_written() -> None:
    assert Entry.of(LEAVES[0]).position == 1
    with pytest.raises(NotProved, match="calendar"):
        Entry.of(LEAVES[0].replace((int(NOW.timestamp()) * 1_000_000).to_bytes(8), b"\x7f" + bytes(7)))
