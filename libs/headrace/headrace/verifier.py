"""Checks, offline, that an event is in a log that its owner signed. This one file is all that is needed.

It imports the standard library alone. Ed25519 signatures are checked by the package ``cryptography`` where that is
installed, else by the program ``openssl`` (3.0 or newer). Copy the file to any machine with Python 3.11 and run::

    python verifier.py proof.json --key headrace/registry+1a2b3c4d+AZ...   # or a file that holds the key
    python verifier.py proof.json --key keys.txt --checkpoints /mnt/kept   # and against checkpoints you kept yourself

``headrace log prove EVENT --out proof.json`` writes such a proof. The key must come from elsewhere than the proof, and
so must the checkpoints. It ends with 0 where the proof holds, 1 where it does not, 2 where it could not be checked.

What is checked, in this order: the event's bytes make the leaf (SHA-256, RFC 6962); the audit path leads from the leaf
to the root of the checkpoint (RFC 9162, section 2.1.3.2); the checkpoint is a C2SP signed note of the log's own key; it
is among the checkpoints that were kept, where some are given.
"""

from __future__ import annotations

import argparse
import binascii
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

PROOF_FORMAT: Final = "headrace-proof-v1"
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root of a log without entries."""
_ED25519: Final = b"\x01"
"""The algorithm byte of C2SP signed notes."""
_SPKI: Final = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes of an Ed25519 key in DER (RFC 8410)."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOTE: Final = re.compile(r"(?:^[^\n]+\n)+\n(?:^\u2014 [^ \n]+ [A-Za-z0-9+/=]+\n)+", re.MULTILINE)
_SIGNATURE: Final = re.compile(r"\u2014 ([^ \n]+) ([A-Za-z0-9+/=]+)")
_SIGNATURE_CHARACTERS: Final = 92
"""Base64 of 4 bytes that name the key and 64 of signature; a note that a crash cut off has less."""
_OPENSSL_TIMEOUT_S: Final = 30


class NotProved(Exception):
    """The evidence does not hold; the message says why, in a sentence for a person."""


class CanNotCheck(Exception):
    """Nothing is known of the evidence: a file, a key or a program is missing or can not be read."""


# --- the tree (RFC 6962, RFC 9162) ----------------------------------------------------------------------------------


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of an entry's leaf bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_from_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes | None:
    """The root that an audit path leads to, None where the path has not the length that it must have."""
    if not 0 <= index < size:
        return None
    node, last, top = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if node & 1 or node == last:
            top = node_hash(sibling, top)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            top = node_hash(top, sibling)
        node, last = node >> 1, last >> 1
    return top if last == 0 else None


def consistent(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether a proof shows that the tree of ``new`` leaves and root begins with that of ``old``."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    hashes = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not hashes:
        return False
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    of_old = of_new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            of_old, of_new = node_hash(sibling, of_old), node_hash(sibling, of_new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            of_new = node_hash(of_new, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and of_old == old_root and of_new == new_root


# --- what a leaf is made of (decision 0003) -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """An event at its place in a log, as its leaf bytes have it. Times are UTC."""

    source: str
    position: int
    event_id: str
    stream_id: str
    version: int
    type: str
    occurred_at: datetime
    recorded_at: datetime
    sequenced_at: datetime
    hlc: int
    meta: bytes
    data: bytes

    @staticmethod
    def of(leaf: bytes) -> Entry:
        """Reads leaf bytes. Raises NotProved where they are none of version 1."""
        if leaf[:1] != b"\x01":
            raise NotProved(f"the leaf has version {leaf[:1].hex() or 'none'}; this program knows version 01")
        fields: list[bytes] = []
        at = 1
        while at < len(leaf):
            end = at + 4 + int.from_bytes(leaf[at : at + 4])
            fields.append(leaf[at + 4 : end])
            at = end
        lengths = {1: 8, 2: 16, 4: 8, 6: 8, 7: 8, 8: 8, 9: 8}
        if at != len(leaf) or len(fields) != 12 or any(len(fields[each]) != lengths[each] for each in lengths):
            raise NotProved("the leaf bytes have not the fields of an entry")
        identity = fields[2].hex()
        try:
            source, stream_id, kind = (fields[each].decode() for each in (0, 3, 5))
        except UnicodeDecodeError:
            raise NotProved("the leaf bytes hold a text that is not UTF-8") from None
        occurred_at, recorded_at, sequenced_at = (_moment(fields[each]) for each in (6, 7, 8))
        return Entry(
            source=source,
            position=_number(fields[1]),
            event_id="-".join((identity[:8], identity[8:12], identity[12:16], identity[16:20], identity[20:])),
            stream_id=stream_id,
            version=_number(fields[4]),
            type=kind,
            occurred_at=occurred_at,
            recorded_at=recorded_at,
            sequenced_at=sequenced_at,
            hlc=_number(fields[9]),
            meta=fields[10],
            data=fields[11],
        )

    @property
    def actor(self) -> str:
        """Who wrote the event: field 1 of its meta, a protobuf message of texts; empty where it can not be read."""
        meta = self.meta
        if meta[:1] != b"\x0a" or len(meta) < 2 or meta[1] > 127 or len(meta) < 2 + meta[1]:
            return ""
        return meta[2 : 2 + meta[1]].decode(errors="replace")


def _number(field: bytes) -> int:
    return int.from_bytes(field, signed=True)


def _moment(field: bytes) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=_number(field))
    except OverflowError:
        raise NotProved("the leaf bytes hold a time beyond the calendar") from None


# --- checkpoints (C2SP signed-note, tlog-checkpoint) ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """A public key that signs checkpoints.

    Attributes:
        name: Whose; empty for a key that came without (PEM), which stands for any.
        public: Its 32 bytes.
    """

    name: str
    public: bytes

    @staticmethod
    def parse(text: str) -> Key:
        """Reads ``name+id+base64``. Raises CanNotCheck."""
        name, _, rest = text.strip().partition("+")
        identity, _, encoded = rest.partition("+")
        try:
            data = b64decode(encoded, validate=True)
            key = Key(name, data[1:])
            sound = bool(name) and data[:1] == _ED25519 and len(data) == 33 and bytes.fromhex(identity) == key.id(name)
        except ValueError:
            sound, key = False, Key("", b"")
        if not sound:
            raise CanNotCheck(f"this is no Ed25519 key of the form name+id+base64: {text.strip()[:80]!r}")
        return key

    def id(self, name: str) -> bytes:
        """Which key signed, as a note says it: 4 bytes."""
        return hashlib.sha256(name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id(self.name).hex()}+{b64encode(_ED25519 + self.public).decode()}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a note says: the first ``size`` entries of the log ``origin`` have this root.

    Attributes:
        origin: The log, ``headrace/registry``.
        size: Entries.
        root: Merkle root, 32 bytes.
        made_at: The time that it gives, as it stands there; empty where it gives none.
        note: The signed text, whole.
    """

    origin: str
    size: int
    root: bytes
    made_at: str
    note: str

    @staticmethod
    def parse(note: str) -> Checkpoint:
        """Reads a note. Raises NotProved where it is no checkpoint."""
        if _NOTE.fullmatch(note) is None:
            raise NotProved("this is no signed note")
        lines = note.partition("\n\n")[0].split("\n")
        try:
            origin, number, encoded, *more = lines
            size, root = int(number), b64decode(encoded, validate=True)
        except ValueError:
            raise NotProved("the note is no checkpoint") from None
        signed = any(len(each) == _SIGNATURE_CHARACTERS for _, each in _SIGNATURE.findall(note))
        if str(size) != number or size < 0 or len(root) != 32 or not signed:
            raise NotProved("the note is no checkpoint")
        made_at = next((each.removeprefix("time ") for each in more if each.startswith("time ")), "")
        return Checkpoint(origin, size, root, made_at, note)

    def signer(self, keys: Sequence[Key]) -> Key:
        """The one of the keys that signed it.

        Raises:
            NotProved: None of them did.
            CanNotCheck: There is nothing to check a signature with.
        """
        text, _, lines = self.note.partition("\n\n")
        for name, encoded in _SIGNATURE.findall(lines):
            try:
                signature = b64decode(encoded, validate=True)
            except ValueError:
                continue
            for key in keys:
                if key.name in ("", name) and name == self.origin and signature[:4] == key.id(name):
                    if verifies(key.public, f"{text}\n".encode(), signature[4:]):
                        return key
                    raise NotProved(f"the signature of {name} under the checkpoint of size {self.size} is wrong")
        raise NotProved(f"the checkpoint of size {self.size} is not signed by a key that was given")


def notes_in(text: str) -> Iterator[str]:
    """Every signed note of a text, which may hold other things in between."""
    return (match.group() for match in _NOTE.finditer(text))


def checkpoints_in(path: Path) -> list[Checkpoint]:
    """The checkpoints of a file, or of every file below a folder; what else lies there is passed over.

    Raises:
        CanNotCheck: It can not be read.
    """
    found: list[Checkpoint] = []
    try:
        files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        for file in files:
            for note in notes_in(file.read_text(encoding="utf-8", errors="replace")):
                try:
                    found.append(Checkpoint.parse(note))
                except NotProved:
                    continue
    except OSError as error:
        raise CanNotCheck(f"{path} can not be read: {error.strerror}") from error
    return found


def keys_of(given: Sequence[str]) -> list[Key]:
    """Keys as they are given: each the key itself, or a file with keys, one a line, or with one in PEM.

    Raises:
        CanNotCheck: One is neither.
    """
    found: list[Key] = []
    for each in given:
        path = Path(each)
        text = each
        try:
            if path.is_file():
                text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CanNotCheck(f"{each} can not be read: {error}") from error
        if "-----BEGIN PUBLIC KEY-----" in text:
            found.append(Key("", _public_of_pem(text)))
        else:
            found += [Key.parse(line) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not found:
        raise CanNotCheck("no key is given")
    return found


def _public_of_pem(text: str) -> bytes:
    body = text.partition("-----BEGIN PUBLIC KEY-----")[2].partition("-----END PUBLIC KEY-----")[0]
    try:
        data = b64decode("".join(body.split()), validate=True)
    except binascii.Error:
        data = b""
    if len(data) != len(_SPKI) + 32 or not data.startswith(_SPKI):
        raise CanNotCheck("the PEM file holds no Ed25519 public key")
    return data[len(_SPKI) :]


def verifies(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether an Ed25519 signature (RFC 8032) is good.

    Raises:
        CanNotCheck: Neither ``cryptography`` nor ``openssl`` is there.
    """
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - it need not be there
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - as above
    except ImportError:
        return verifies_by_openssl(public, message, signature)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def verifies_by_openssl(public: bytes, message: bytes, signature: bytes) -> bool:
    """As ``verifies``, by the program ``openssl``."""
    program = shutil.which("openssl")
    if program is None:
        raise CanNotCheck("install the package cryptography, or the program openssl: nothing here checks signatures")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in (("key", _SPKI + public), ("message", message), ("signature", signature)):
            (folder / file).write_bytes(content)
        command = [program, "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key", "-rawin"]
        command += ["-in", "message", "-sigfile", "signature"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_OPENSSL_TIMEOUT_S, check=False
        )
    if "Verified Successfully" in done.stdout:
        return True
    if "Verification Failure" in done.stdout or len(signature) != 64:
        return False
    raise CanNotCheck(f"openssl can not check the signature: {done.stderr.strip() or done.stdout.strip()}")


# --- proofs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proof:
    """That an entry is in a log: its leaf bytes, the audit path (lowest first), and the signed checkpoint."""

    leaf: bytes
    path: Sequence[bytes]
    checkpoint: Checkpoint

    @property
    def entry(self) -> Entry:
        """The entry. Raises NotProved where the leaf bytes are none."""
        return Entry.of(self.leaf)

    def to_json(self) -> str:
        """The proof as a file. What it says in clear besides the evidence is for people, and is checked against it."""
        entry = self.entry
        plain = {
            "format": PROOF_FORMAT,
            "source": entry.source,
            "position": entry.position,
            "event_id": entry.event_id,
            "leaf_bytes": b64encode(self.leaf).decode(),
            "path": b64encode(b"".join(self.path)).decode(),
            "checkpoint": self.checkpoint.note,
        }
        return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Proof:
        """Reads such a file. Raises NotProved."""
        try:
            plain: dict[str, Any] = json.loads(text)  # Any: JSON
            if plain["format"] != PROOF_FORMAT:
                raise NotProved(f"the file has the format {plain['format']!r}; this program knows {PROOF_FORMAT!r}")
            leaf, path = (b64decode(plain[name], validate=True) for name in ("leaf_bytes", "path"))
            note, said = plain["checkpoint"], (plain["source"], plain["position"], plain["event_id"])
            checkpoint = Checkpoint.parse(note)
        except (ValueError, KeyError, TypeError) as error:
            raise NotProved(f"the file is no proof: {error}") from error
        entry = Entry.of(leaf)
        if said != (entry.source, entry.position, entry.event_id):
            raise NotProved("what the file says of the event is not what its bytes say")
        if len(path) % 32:
            raise NotProved("the audit path is not made of hashes")
        return Proof(leaf, [path[at : at + 32] for at in range(0, len(path), 32)], checkpoint)

    def check(self, keys: Sequence[Key]) -> tuple[Entry, Key]:
        """The entry that is proved, and the key that vouches for it.

        Raises:
            NotProved: The proof does not hold.
            CanNotCheck: There is nothing to check a signature with.
        """
        entry, checkpoint = self.entry, self.checkpoint
        if checkpoint.origin != entry.source:
            raise NotProved(f"the event is of {entry.source}, and the checkpoint speaks of {checkpoint.origin}")
        if not 1 <= entry.position <= checkpoint.size:
            raise NotProved(f"a log of {checkpoint.size} entries has no position {entry.position}")
        root = root_from_inclusion(entry.position - 1, checkpoint.size, leaf_hash(self.leaf), self.path)
        if root != checkpoint.root:
            raise NotProved("the event's bytes and the audit path do not lead to the root of the checkpoint")
        return entry, checkpoint.signer(keys)


def require_kept(checkpoint: Checkpoint, kept: Sequence[Checkpoint]) -> None:
    """Raises NotProved where a checkpoint is not one of those that were kept."""
    same = [each for each in kept if (each.origin, each.size) == (checkpoint.origin, checkpoint.size)]
    if any(each.root != checkpoint.root for each in same):
        raise NotProved(
            f"the checkpoint of size {checkpoint.size} that was kept has another root: the log was rewritten"
        )
    if not same:
        raise NotProved(f"no checkpoint of size {checkpoint.size} was kept: prove the event against one that was")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    first, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("proof", type=Path, help="file that `headrace log prove` wrote")
    parser.add_argument("--key", action="append", required=True, help="key of the log, or a file of keys; repeatable")
    parser.add_argument("--checkpoints", type=Path, help="file or folder of checkpoints kept outside the platform")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    try:
        keys = keys_of(given.key)
        try:
            proof = Proof.from_json(given.proof.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise CanNotCheck(f"{given.proof} can not be read: {error}") from error
        entry, key = proof.check(keys)
        if given.checkpoints is not None:
            require_kept(proof.checkpoint, checkpoints_in(given.checkpoints))
    except (NotProved, CanNotCheck) as error:
        proved = False if isinstance(error, NotProved) else None
        if given.json:
            sys.stdout.write(json.dumps({"proved": proved, "cause": str(error)}) + "\n")
        else:
            sys.stderr.write(f"{'NOT PROVED' if proved is False else 'can not check'}: {error}\n")
        return 1 if proved is False else 2
    told = {
        "type": entry.type,
        "event": entry.event_id,
        "stream": f"{entry.stream_id} (version {entry.version})",
        "log": f"{entry.source}, position {entry.position} of {proof.checkpoint.size}",
        "happened": entry.occurred_at.isoformat(),
        "recorded": entry.recorded_at.isoformat(),
        "sequenced": entry.sequenced_at.isoformat(),
        "by": entry.actor,
        "data": f"{len(entry.data)} bytes, SHA-256 {hashlib.sha256(entry.data).hexdigest()}",
        "signed": proof.checkpoint.made_at,
        "key": str(key),
    }
    if given.json:
        sys.stdout.write(json.dumps({"proved": True, **told}) + "\n")
    else:
        sys.stdout.write("PROVED\n" + "".join(f"  {name:<10} {value}\n" for name, value in told.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
