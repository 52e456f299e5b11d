"""Signatures of packages: ours against OpenSSF's own program, and what is refused."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from headrace.packages.files import SINGLE, ManifestInvalid, digests_at, files_of
from headrace.packages.signatures import MAX_BUNDLE_BYTES, Bundle, PrivateKey, PublicKey, SignatureInvalid
from tests.support.signing import KeyPair, openssf_signs, openssf_verifies

FILES = {"MLmodel": "a" * 64, "data/model.onnx": "b" * 64}
KEY = KeyPair.make()
CURVES = [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    (model / "data").mkdir(parents=True)
    (model / "MLmodel").write_text("flavors: {}\n")
    (model / "data" / "model.onnx").write_bytes(b"\x08\x07")
    (model / "data-2.txt").write_bytes(b"")  # sorts otherwise as text than as a path
    return model


@pytest.mark.modelsigning
@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
@pytest.mark.timeout(120)  # it starts the program five times
def test_openssfs_program_verifies_what_is_signed_here(folder: Path, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    pair = KeyPair.make(curve)
    private, public = pair.write(tmp_path)
    _, other = KeyPair.make(curve).write(tmp_path, "other")
    signature = tmp_path / "model.sig"
    signature.write_bytes(PrivateKey(private.read_bytes()).sign(digests_at(folder), name="delays"))

    assert openssf_verifies(folder, signature, key=public)
    assert not openssf_verifies(folder, signature, key=other)

    single, signature_of_it = folder / "data" / "model.onnx", tmp_path / "single.sig"
    signature_of_it.write_bytes(pair.signer.sign(digests_at(single), name="delays"))
    assert openssf_verifies(single, signature_of_it, key=public)

    single.write_bytes(b"\x08\x08")
    assert not openssf_verifies(folder, signature, key=public)
    assert not openssf_verifies(single, signature_of_it, key=public)


@pytest.mark.modelsigning
@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_what_openssfs_program_signs_is_verified_here(folder: Path, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    pair = KeyPair.make(curve)
    private, public = pair.write(tmp_path)
    signed = Bundle(openssf_signs(folder, tmp_path / "model.sig", key=private))
    single = folder / "data" / "model.onnx"
    signed_single = Bundle(openssf_signs(single, tmp_path / "single.sig", key=private))

    key = PublicKey(public.read_bytes())
    assert signed.key_id == key.id
    signed.verify(key, digests_at(folder))
    signed_single.verify(key, digests_at(single))
    with pytest.raises(SignatureInvalid, match="it is of another package"):
        signed_single.verify(key, digests_at(folder))
    single.write_bytes(b"\x08\x08")
    with pytest.raises(SignatureInvalid, match=r"data/model\.onnx: they are not what was signed"):
        signed.verify(key, digests_at(folder))


def test_a_signature_is_of_one_key_and_exactly_these_files() -> None:
    bundle = Bundle(KEY.signer.sign(FILES, name="delays"))

    bundle.verify(KEY.verifier, dict(reversed(FILES.items())))
    for files, told in [
        ({**FILES, "more": "c" * 64}, "more: they are not signed"),
        ({"MLmodel": FILES["MLmodel"]}, "data/model.onnx: they are signed and not there"),
        ({**FILES, "MLmodel": "c" * 64}, "MLmodel: they are not what was signed"),
        ({"mlmodel": FILES["MLmodel"], "data/model.onnx": "b" * 64}, "mlmodel: they are not signed; MLmodel"),
        ({SINGLE: "a" * 64}, ".: they are not signed"),
    ]:
        with pytest.raises(SignatureInvalid, match=told):
            bundle.verify(KEY.verifier, files)
    with pytest.raises(SignatureInvalid, match="it is of the key"):
        bundle.verify(KeyPair.make().verifier, FILES)


def test_one_file_has_no_name_in_its_package() -> None:
    named = Bundle(KEY.signer.sign({"model.onnx": "a" * 64}, name="folder"))

    named.verify(KEY.verifier, {SINGLE: "a" * 64})
    with pytest.raises(SignatureInvalid, match="not what was signed"):
        named.verify(KEY.verifier, {SINGLE: "b" * 64})
    with pytest.raises(SignatureInvalid, match="not signed"):
        named.verify(KEY.verifier, {"other.onnx": "a" * 64})


Change = Callable[[dict[str, Any], dict[str, Any]], object]


def _resigned(change: Change, *, by: KeyPair = KEY) -> bytes:
    """A signature whose statement was changed, signed anew: what is refused then is the statement."""
    bundle = orjson.loads(KEY.signer.sign(FILES, name="delays"))
    statement = orjson.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(statement, bundle)
    return _sealed(orjson.dumps(statement), bundle, by)


def _sealed(payload: bytes, bundle: dict[str, Any], by: KeyPair) -> bytes:
    kind = "application/vnd.in-toto+json"
    private = by.signer
    signed = private._key.sign(f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload, ec.ECDSA(SHA256()))
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signed).decode()
    return orjson.dumps(bundle)


def _resources(statement: dict[str, Any]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = statement["predicate"]["resources"]
    return listed


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda it, _: it.update(_type="https://in-toto.io/Statement/v0.1"), "must state"),
        (lambda it, _: it.update(predicateType="https://model_signing/Digests/v0.1"), "must state"),
        (lambda it, _: it["subject"][0]["digest"].update(sha256="c" * 64), "its digest is not that"),
        (lambda it, _: it["subject"].append(it["subject"][0]), "no list of files"),
        (lambda it, _: it["predicate"]["serialization"].update(method="shards"), "whole files by SHA-256"),
        (lambda it, _: it["predicate"]["serialization"].update(hash_type="blake2"), "whole files by SHA-256"),
        (lambda it, _: _resources(it)[0].update(algorithm="blake2"), "whole files by SHA-256"),
        (lambda it, _: _resources(it)[0].update(digest="A" * 64), "its digest is not that"),
        (lambda it, _: _resources(it)[0].update(digest="a"), "its digest is not that"),
        (lambda it, _: _resources(it)[0].update(name=7), "no list of files"),
        (lambda it, _: _resources(it)[0].update(name="other"), "other: they are signed and not there"),
        (lambda it, _: it.update(predicate=None), "no list of files"),
        (lambda _, of: of["dsseEnvelope"].update(payloadType="text/plain"), "its payload must be"),
    ],
)
def test_a_statement_that_is_not_of_these_files_is_refused_whoever_signed_it(change: Change, told: str) -> None:
    with pytest.raises(SignatureInvalid, match=told):
        Bundle(_resigned(change)).verify(KEY.verifier, FILES)


def test_a_file_listed_twice_is_refused() -> None:
    def twice(statement: dict[str, Any], _: object) -> None:
        _resources(statement).append(_resources(statement)[0])
        digests = b"".join(bytes.fromhex(each["digest"]) for each in _resources(statement))
        statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(digests).hexdigest()

    with pytest.raises(SignatureInvalid, match="lists a file twice"):
        Bundle(_resigned(twice)).verify(KEY.verifier, FILES)


def test_what_was_signed_by_another_under_the_hint_of_a_key_is_refused() -> None:
    forged = _resigned(lambda *_: None, by=KeyPair.make())

    assert Bundle(forged).key_id == KEY.verifier.id
    with pytest.raises(SignatureInvalid, match="did not sign"):
        Bundle(forged).verify(KEY.verifier, FILES)


def test_every_flipped_byte_is_refused() -> None:
    """Of payload and signature alike, whichever it is."""
    bundle = orjson.loads(KEY.signer.sign(FILES, name="delays"))
    envelope = bundle["dsseEnvelope"]

    def refused() -> bool:
        try:
            Bundle(orjson.dumps(bundle)).verify(KEY.verifier, FILES)
        except SignatureInvalid:
            return True
        return False

    assert not refused()
    for holder, name in [(envelope, "payload"), (envelope["signatures"][0], "sig")]:
        whole = holder[name]
        content = base64.b64decode(whole)
        for place in range(len(content)):
            holder[name] = base64.b64encode(
                content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
            ).decode()
            assert refused(), (name, place)
        holder[name] = whole


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no Sigstore bundle"),
        (b"[]", "no Sigstore bundle"),
        (b'{"mediaType": 1}', "no Sigstore bundle"),
        (b" " * (MAX_BUNDLE_BYTES + 1), "at most"),
    ],
)
def test_what_is_no_bundle_is_refused(content: bytes, told: str) -> None:
    with pytest.raises(SignatureInvalid, match=told):
        Bundle(content)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda it: it.update(mediaType="application/vnd.dev.sigstore.bundle.v0.2+json"), "the bundle must be"),
        (lambda it: it["verificationMaterial"]["publicKey"].update(hint=""), "must name its key"),
        (lambda it: it["verificationMaterial"].pop("publicKey"), "no Sigstore bundle"),
        (lambda it: it["dsseEnvelope"].update(signatures=[]), "no Sigstore bundle"),
        (lambda it: it["dsseEnvelope"]["signatures"].append({"sig": "AA=="}), "no Sigstore bundle"),
        (lambda it: it["dsseEnvelope"].update(payload="not base64!"), "no Sigstore bundle"),
    ],
)
def test_a_bundle_of_another_kind_is_refused(change: Callable[[dict[str, Any]], object], told: str) -> None:
    bundle = orjson.loads(KEY.signer.sign(FILES, name="delays"))
    change(bundle)

    with pytest.raises(SignatureInvalid, match=told):
        Bundle(orjson.dumps(bundle))


def test_keys_of_other_kinds_are_refused() -> None:
    edwards = ed25519.Ed25519PrivateKey.generate()
    pem = edwards.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(SignatureInvalid, match="P-256, P-384 or P-521"):
        PublicKey(pem)
    with pytest.raises(SignatureInvalid, match="P-256, P-384 or P-521"):
        PublicKey(KeyPair.make(ec.SECP256K1()).public)
    with pytest.raises(SignatureInvalid, match="P-256, P-384 or P-521"):
        PrivateKey(edwards.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(SignatureInvalid, match="no public key"):
        PublicKey(KEY.private)
    with pytest.raises(SignatureInvalid, match="no private key"):
        PrivateKey(KEY.public)


def test_a_locked_key_needs_its_password() -> None:
    locked = KeyPair.make(password=b"open")

    assert PrivateKey(locked.private, password=b"open").public.id == PublicKey(locked.public).id
    with pytest.raises(SignatureInvalid, match="password"):
        PrivateKey(locked.private)
    with pytest.raises(SignatureInvalid, match="password"):
        PrivateKey(locked.private, password=b"other")


def test_an_id_is_of_the_key_however_its_pem_is_written() -> None:
    text = KEY.public.decode()

    assert PublicKey(text.replace("\n", "\r\n")).id == PublicKey(f"my key\n{text}").id == KEY.verifier.id


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../b", "a//b", "./a", "a\\b", "a/\0", ".."])
def test_a_manifest_names_no_file_outside_its_package(path: str) -> None:
    content = orjson.dumps({"files": [{"path": path, "sha256": "a" * 64, "size_bytes": 1}]})

    with pytest.raises(ManifestInvalid, match="no path within the package"):
        files_of(content, "default")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"files": 1}', b'{"files": [1]}', b'{"files": [{}]}'])
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(ManifestInvalid, match="can not be read"):
        files_of(content, "default")


def test_a_manifest_names_digests() -> None:
    with pytest.raises(ManifestInvalid, match="no SHA-256 of 'a'"):
        files_of(orjson.dumps({"files": [{"path": "a", "sha256": "a" * 63, "size_bytes": 1}]}), "default")


def test_a_path_listed_twice_is_refused() -> None:
    each = {"path": "a", "sha256": "a" * 64, "size_bytes": 1}

    with pytest.raises(ManifestInvalid, match="twice"):
        files_of(orjson.dumps({"files": [each, each]}), "default")
