"""What an artifact file says of itself before it is verified: enough to say whether it fits. Quick to import and do.

Nothing is decided by it that is not looked at again when the file is verified.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from gdn_aot.artifact import tar
from gdn_aot.artifact.container import Frame, FrameError
from gdn_aot.artifact.names import FORMAT, MAX_MANIFEST
from gdn_aot.artifact.trailer import digest
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST = 2_000_000
"""Brackets and commas of a manifest that are parsed at most, as in `gdn_aot.codec`: they bound the memory it takes."""


def glance(data: bytes) -> dict[str, Any]:
    """Return the header that the index of an artifact gets, from the bytes of its file.

    Raises:
        VerificationError: It is not an artifact, or its trailer is not that of what is before it.
    """
    digests = digest(data)
    if digests.fault:
        raise VerificationError(f"it is not a sound artifact: trailer: {digests.fault}")
    try:
        frame = Frame(memoryview(data)[: digests.body])
        size = tar.content_size(frame.read(tar.BLOCK))
        text = frame.read(size) if size is not None and size <= MAX_MANIFEST else b""
        if not (frame.cut or frame.leftover) and sum(map(text.count, (b"[", b"{", b","))) <= _MOST:
            manifest = json.loads(text)
            if manifest["format"] == FORMAT:
                return header_of(manifest, digests.sha256, hashlib.sha256(text).hexdigest())
    except (FrameError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        pass
    raise VerificationError("it is not a sound artifact: gdn-aot verify says why")


def header_of(manifest: Mapping[str, Any], sha256: str, manifest_sha256: str) -> dict[str, Any]:
    """Return the header of an index from a manifest as plain JSON."""
    kernels, target, provider = manifest["kernels"], manifest["target"], manifest["provider"]
    return {
        "identifier": manifest["identifier"],
        "sha256": sha256,
        "manifest_sha256": manifest_sha256,
        "target": target["name"],
        "capability": target["capability"],
        "provider": provider["name"],
        "distribution": provider["distribution"],
        "version": provider["version"],
        "triton": manifest["triton"]["version"],
        "workloads": manifest["workloads"],
        "models": manifest["models"],
        "modules": sorted({kernel["module"] for kernel in kernels}),
        "packages": [PROVIDERS[provider["name"]].package],
        "kernels": len(kernels),
        "choices": sum(len(kernel["choices"]) for kernel in kernels),
        "binaries": sum(len(kernel["binaries"]) for kernel in kernels),
        "dirty": manifest["build"]["dirty"],
    }
