"""Signatures of packages, in the format of OpenSSF Model Signing 1.0 with keys of one's own.

A signature is a Sigstore bundle (v0.3, JSON) that names its key by the SHA-256 of the public key's PEM and holds a DSSE
envelope. The envelope's payload is an in-toto statement (v1): the predicate lists every file of the package with its
SHA-256, the one subject has the SHA-256 of these digests in their order. The signature is ECDSA over the envelope's
pre-authentication encoding, with the hash that fits the curve.

The program ``model_signing`` verifies what is signed here, and what it signs with ``sign key`` is verified here: files
by SHA-256, on the curves P-256, P-384 and P-521. Everything here is pure; the package ``cryptography`` is needed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from headrace.packages.files import SINGLE

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
"""Media type of a signature."""
MAX_BUNDLE_BYTES: Final = 4 * 1024 * 1024
"""Largest signature that is read: some 20000 files."""
_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_WHICH: Final = "the key must be an elliptic curve's: P-256, P-384 or P-521"
_TOLD: Final = 5
"""Most paths that an error names."""


class SignatureInvalid(ValueError):
    """A signature, or a key, is not what it has to be; the message says why, in a sentence for a person."""


class PublicKey:
    """A public key that signs packages.

    Args:
        pem: SubjectPublicKeyInfo as PEM.

    Attributes:
        id: SHA-256 of its PEM, 64 hex digits.
        pem: Its PEM, in the one form that the id is of.

    Raises:
        SignatureInvalid: It is no such key, or on another curve.
    """

    def __init__(self, pem: str | bytes) -> None:
        try:
            found = load_pem_public_key(pem.encode() if isinstance(pem, str) else pem)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SignatureInvalid("it is no public key in PEM") from error
        if not isinstance(found, ec.EllipticCurvePublicKey) or found.curve.name not in _HASHES:
            raise SignatureInvalid(_WHICH)
        self._key = found
        self.pem = _pem(self._key)
        self.id = _key_id(self.pem)

    def verifies(self, signature: bytes, content: bytes) -> bool:
        """Whether the key signed the content."""
        try:
            self._key.verify(signature, content, ec.ECDSA(_HASHES[self._key.curve.name]))
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """A private key that signs packages.

    Args:
        pem: The key as PEM.
        password: That of the PEM, where it has one.

    Raises:
        SignatureInvalid: It is no such key, on another curve, or the password is missing or wrong.
    """

    def __init__(self, pem: bytes, *, password: bytes | None = None) -> None:
        try:
            found = load_pem_private_key(pem, password)
        except TypeError as error:  # a password is needed, or needless
            raise SignatureInvalid(f"the private key can not be read: {str(error).lower()}") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise SignatureInvalid("it is no private key in PEM, or the password is wrong") from error
        if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name not in _HASHES:
            raise SignatureInvalid(_WHICH)
        self._key = found
        self.public = PublicKey(_pem(self._key.public_key()))

    def sign(self, files: Mapping[str, str], *, name: str) -> bytes:
        """A signature of a package.

        Args:
            files: SHA-256 of each file, 64 hex digits, by its path; that of a single file by ``SINGLE``.
            name: What the package is called; verifying pays no heed to it.
        """
        payload = orjson.dumps(_statement(files, name))
        signature = self._key.sign(_authenticated(payload), ec.ECDSA(_HASHES[self._key.curve.name]))
        bundle = {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": self.public.id}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": _PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        }
        return orjson.dumps(bundle)


class Bundle:
    """A signature as it came: nothing of it is verified yet.

    Args:
        content: The JSON.

    Attributes:
        key_id: The key that it says it is of.

    Raises:
        SignatureInvalid: It is no Sigstore bundle of a signature by a key.
    """

    def __init__(self, content: bytes) -> None:
        if len(content) > MAX_BUNDLE_BYTES:
            raise SignatureInvalid(f"a signature has at most {MAX_BUNDLE_BYTES} bytes")
        try:
            given = orjson.loads(content)
            media_type = given["mediaType"]
            self.key_id = given["verificationMaterial"]["publicKey"]["hint"]
            envelope = given["dsseEnvelope"]
            self._payload_type = envelope["payloadType"]
            [signature] = envelope["signatures"]
            self._payload = base64.b64decode(envelope["payload"], validate=True)
            self._signature = base64.b64decode(signature["sig"], validate=True)
        except (ValueError, KeyError, TypeError, IndexError, binascii.Error) as error:
            raise SignatureInvalid("it is no Sigstore bundle with one DSSE signature by a key") from error
        if media_type != MEDIA_TYPE:
            raise SignatureInvalid(f"the bundle must be {MEDIA_TYPE}, not {str(media_type)[:100]}")
        if not isinstance(self.key_id, str) or not _SHA256.fullmatch(self.key_id):
            raise SignatureInvalid("the bundle must name its key by the SHA-256 of the public key's PEM")

    def verify(self, key: PublicKey, files: Mapping[str, str]) -> None:
        """Returns when ``key`` signed exactly the package of these files (as in ``PrivateKey.sign``).

        Raises:
            SignatureInvalid: It is of another key, tampered with, of other files, or of a kind not known here.
        """
        if self.key_id != key.id:
            raise SignatureInvalid(f"it is of the key {self.key_id[:12]}, not of {key.id[:12]}")
        if self._payload_type != _PAYLOAD_TYPE:
            raise SignatureInvalid(f"its payload must be {_PAYLOAD_TYPE}")
        if not key.verifies(self._signature, _authenticated(self._payload)):
            raise SignatureInvalid(f"the key {key.id[:12]} did not sign what it says")
        signed = _signed_files(self._payload)
        if set(files) == {SINGLE} and len(signed) == 1:  # one file has no name in its package, whatever it was called
            signed = dict.fromkeys(files, next(iter(signed.values())))
        _require_same(signed, files)


def _statement(files: Mapping[str, str], name: str) -> dict[str, Any]:
    ordered = sorted(files, key=PurePosixPath)
    return {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root(files[each] for each in ordered)}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": [{"name": each, "algorithm": "sha256", "digest": files[each]} for each in ordered],
        },
    }


def _signed_files(payload: bytes) -> dict[str, str]:
    """What a statement lists; its signature was verified. Raises SignatureInvalid."""
    try:
        statement = orjson.loads(payload)
        kind, predicate_type = statement["_type"], statement["predicateType"]
        if (kind, predicate_type) != (_STATEMENT, _PREDICATE):
            raise SignatureInvalid(f"it must state {_PREDICATE} of OpenSSF Model Signing 1.0")
        [subject] = statement["subject"]
        root = subject["digest"]["sha256"]
        how = statement["predicate"]["serialization"]
        listed = [(each["name"], each["algorithm"], each["digest"]) for each in statement["predicate"]["resources"]]
        method, hashed = how["method"], how["hash_type"]
    except SignatureInvalid:
        raise
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise SignatureInvalid("what it states is no list of files with their digests") from error
    if (method, hashed) != ("files", "sha256") or any(algorithm != "sha256" for _, algorithm, _ in listed):
        raise SignatureInvalid("it must be of whole files by SHA-256")
    if not all(isinstance(name, str) and isinstance(digest, str) for name, _, digest in listed):
        raise SignatureInvalid("what it states is no list of files with their digests")
    if not all(_SHA256.fullmatch(digest) for _, _, digest in listed) or root != _root(each for _, _, each in listed):
        raise SignatureInvalid("its digest is not that of the files it lists")
    files = {name: digest for name, _, digest in listed}
    if len(files) != len(listed):
        raise SignatureInvalid("it lists a file twice")
    return files


def _require_same(signed: Mapping[str, str], files: Mapping[str, str]) -> None:
    faults = [
        ("they are not signed", sorted(files.keys() - signed.keys())),
        ("they are signed and not there", sorted(signed.keys() - files.keys())),
        ("they are not what was signed", sorted(each for each in files.keys() & signed if files[each] != signed[each])),
    ]
    told = [f"{', '.join(paths[:_TOLD])}{', …' * (len(paths) > _TOLD)}: {why}" for why, paths in faults if paths]
    if told:
        raise SignatureInvalid(f"it is of another package; {'; '.join(told)}"[:1000])


def _root(digests: Iterable[str]) -> str:
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _authenticated(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    return f"DSSEv1 {len(_PAYLOAD_TYPE)} {_PAYLOAD_TYPE} {len(payload)} ".encode() + payload


def _pem(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _key_id(pem: str) -> str:
    return hashlib.sha256(pem.encode()).hexdigest()
