"""Whether the package of a version may be loaded: pure, from what the registry says of its signatures and keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from headrace.api.registry.v1.resources_pb2 import PackageSignature, PackageTrust, SigningKey

if TYPE_CHECKING:
    from headrace.packages.signatures import PublicKey

NOT_SIGNED = "PACKAGE_NOT_SIGNED"
NOT_TRUSTED = "SIGNING_KEY_NOT_TRUSTED"
WITHDRAWN = "SIGNING_KEY_WITHDRAWN"
INVALID = "PACKAGE_SIGNATURE_INVALID"


class NotTrusted(Exception):
    """A package is not to be loaded.

    Attributes:
        reason: ``PACKAGE_NOT_SIGNED``, ``SIGNING_KEY_NOT_TRUSTED``, ``SIGNING_KEY_WITHDRAWN`` or
            ``PACKAGE_SIGNATURE_INVALID``.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.message, self.reason = message, reason


def standing(trust: PackageTrust) -> list[tuple[SigningKey, PackageSignature]]:
    """The signatures that count: those of keys that are trusted and not withdrawn."""
    keys = {each.id: each for each in trust.keys if not each.HasField("withdrawal")}
    return [(keys[each.key_id], each) for each in trust.signatures if each.key_id in keys]


def pinned(trust: PackageTrust, keys: Iterable[PublicKey]) -> PackageTrust:
    """What is to be verified for somebody who trusts these keys alone, and none of the registry's."""
    own = [SigningKey(id=each.id, public_key=each.pem) for each in keys]
    return PackageTrust(required=True, keys=own, signatures=trust.signatures)


def require_countable(trust: PackageTrust, name: str) -> list[tuple[SigningKey, PackageSignature]]:
    """The signatures that are to be verified; none where the package needs none.

    Raises:
        NotTrusted: A signature is required and none was made; or none that was made counts, required or not.
    """
    found = standing(trust)
    if found:
        return found
    if trust.signatures:
        made = {each.key_id for each in trust.signatures}
        gone = [f"{each.id[:12]} ({each.withdrawal.reason})" for each in trust.keys if each.id in made]
        if gone:
            raise NotTrusted(f"{name} is signed by keys that were withdrawn: {', '.join(gone)}", reason=WITHDRAWN)
        told = ", ".join(sorted(each[:12] for each in made))
        raise NotTrusted(f"{name} is signed by no key that is trusted: only by {told}", reason=NOT_TRUSTED)
    if trust.required:
        raise NotTrusted(f"{name} is not signed, and its model asks for that", reason=NOT_SIGNED)
    return []


def require_trusted(
    trust: PackageTrust, name: str, *, files: Mapping[str, str], bundles: Mapping[str, bytes]
) -> list[str]:
    """The ids of the keys that signed exactly this package; none where it needs no signature.

    Args:
        trust: What the registry says.
        name: What the version is called in errors.
        files: SHA-256 of each file as it lies here, by path.
        bundles: The signatures that ``require_countable`` lists, by the digest of each.

    Raises:
        NotTrusted: As ``require_countable``; or a signature that counts is none of these files.
    """
    found = require_countable(trust, name)
    if not found:
        return []
    from headrace.packages.signatures import Bundle, PublicKey, SignatureInvalid  # noqa: PLC0415 - an extra

    for key, signature in found:
        try:
            Bundle(bundles[signature.bundle.sha256]).verify(PublicKey(key.public_key), files)
        except SignatureInvalid as error:
            message = f"{name} is not what {key.id[:12]} signed: {error}"
            raise NotTrusted(message, reason=INVALID) from error
    return [key.id for key, _ in found]
