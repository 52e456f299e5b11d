"""Whether the package of a version is to be loaded, by what the registry says of its signatures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.packages.files import SINGLE
from headrace.packages.trust import NotTrusted, require_countable, require_trusted
from headrace_serving.runtime import ModelNotLoadable
from headrace_serving.store import KnownVersion


async def require_signed(known: KnownVersion, read: Callable[[ObjectRef], Awaitable[bytes]]) -> list[str]:
    """The keys that signed exactly the package of a version (of one file); none where it needs no signature.

    Args:
        known: The version.
        read: The bytes of a signature, verified by their digest.

    Raises:
        ModelNotLoadable: With the reason of a ``NotTrusted``.
        KitError: What ``read`` raises.
    """
    version, files = known.version, {SINGLE: known.version.artifact.sha256}
    try:
        signatures = [each.bundle for _, each in require_countable(known.trust, version.name)]
        bundles = {each.sha256: await read(each) for each in signatures}
        return await asyncio.to_thread(require_trusted, known.trust, version.name, files=files, bundles=bundles)
    except NotTrusted as error:
        raise ModelNotLoadable(error.message, reason=error.reason) from error
