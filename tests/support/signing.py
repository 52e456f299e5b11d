"""Keys that sign packages, and OpenSSF's own program beside them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from headrace.packages.signatures import PrivateKey, PublicKey
from tests.support.needs import model_signing


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key of a test's own, as PEM.

    Attributes:
        private: PKCS#8.
        public: SubjectPublicKeyInfo.
    """

    private: bytes
    public: bytes

    @staticmethod
    def make(curve: ec.EllipticCurve | None = None, *, password: bytes = b"") -> KeyPair:
        """A fresh key, on P-256 unless told otherwise."""
        key = ec.generate_private_key(curve or ec.SECP256R1())
        lock = BestAvailableEncryption(password) if password else NoEncryption()
        return KeyPair(
            private=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock),
            public=key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        )

    @property
    def signer(self) -> PrivateKey:
        """The private key, ready to sign."""
        return PrivateKey(self.private)

    @property
    def verifier(self) -> PublicKey:
        """The public key."""
        return PublicKey(self.public)

    def write(self, folder: Path, name: str = "key") -> tuple[Path, Path]:
        """Both as files: private, public."""
        private, public = folder / f"{name}.pem", folder / f"{name}.pub"
        private.write_bytes(self.private)
        public.write_bytes(self.public)
        return private, public


def openssf_signs(model: Path, signature: Path, *, key: Path) -> bytes:
    """What ``model_signing sign key`` writes."""
    ended = _model_signing("sign", "key", str(model), "--private_key", str(key), "--signature", str(signature))
    assert not ended.returncode, ended.stderr
    return signature.read_bytes()


def openssf_verifies(model: Path, signature: Path, *, key: Path) -> bool:
    """Whether ``model_signing verify key`` takes a signature."""
    ended = _model_signing("verify", "key", str(model), "--public_key", str(key), "--signature", str(signature))
    assert ("Verification failed" in ended.stderr) == bool(ended.returncode), ended.stderr
    return not ended.returncode


def _model_signing(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(model_signing()), *arguments], capture_output=True, text=True, timeout=50, check=False)
