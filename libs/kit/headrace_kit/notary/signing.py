"""The key that signs checkpoints, and the texts that it signs.

A checkpoint is a C2SP signed note (https://c2sp.org/signed-note) of the form tlog-checkpoint: the log's name, its size,
its root, and one more line, ``time`` with the moment of the signature in RFC 3339.
"""

from __future__ import annotations

import os
from base64 import b64encode
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from headrace.verifier import Checkpoint, Key
from headrace_kit.errors import FailedPrecondition
from headrace_kit.notary.checkpoints import rfc3339


class Signer:
    """Signs the checkpoints of one log.

    Args:
        name: The log, ``headrace/registry``; also the name of the key.
        private: The key.
    """

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self.key = Key(name, private.public_key().public_bytes_raw())
        self._name, self._private = name, private

    @staticmethod
    def load(name: str, path: Path) -> Signer:
        """The key of a file: PKCS#8 in PEM, as ``openssl genpkey -algorithm ed25519`` writes it.

        Raises:
            FailedPrecondition: There is no such file, or it holds something else.
        """
        try:
            private = load_pem_private_key(path.read_bytes(), None)
        except OSError as error:
            raise _unfit(path, f"can not be read: {error.strerror}") from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _unfit(path, "holds no private key in PEM without a password") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise _unfit(path, "holds a key that is not Ed25519")
        return Signer(name, private)

    @staticmethod
    def load_or_make(name: str, path: Path) -> Signer:
        """As ``load``; makes the file first, readable by its owner alone, where there is none. Raises as ``load``."""
        if not path.exists():
            pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            try:
                _make(path, pem)
            except OSError as error:
                raise _unfit(path, f"can not be made: {error.strerror}") from error
        return Signer.load(name, path)

    def sign(self, size: int, root: bytes, at: datetime) -> Checkpoint:
        """A signed checkpoint."""
        text = f"{self._name}\n{size}\n{b64encode(root).decode()}\ntime {rfc3339(at)}\n"
        signature = self.key.id(self._name) + self._private.sign(text.encode())
        return Checkpoint.parse(f"{text}\n\u2014 {self._name} {b64encode(signature).decode()}\n")


def _make(path: Path, pem: bytes) -> None:
    """The file appears whole, and never in place of another: two processes that begin at once use the same key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid4().hex[:12]}")
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(partial)
    finally:
        partial.unlink()


def _unfit(path: Path, why: str) -> FailedPrecondition:
    return FailedPrecondition(f"the key that signs checkpoints, {path}, {why}", reason="CHECKPOINT_KEY")
