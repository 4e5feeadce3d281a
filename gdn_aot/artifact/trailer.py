"""The trailer of an artifact file: the digest of all before it. Serving processes import it: it is light.

The trailer is a zstd skippable frame, so that ``zstd -d`` and ``tar --zstd`` read the file as any other, and it makes
every single changed byte visible: the checksum inside the zstd frame covers the content, not the frame's own header.
"""

from __future__ import annotations

import hashlib
import struct

from gdn_aot._plain import Plain

_SKIPPABLE = 0x184D2A50
_MAGIC = b"gdn-aot"
_TRAILER = struct.Struct(f"<II{len(_MAGIC)}s32s")


class Digests(Plain):
    """A file as bytes.

    Args:
        sha256: Of the whole file.
        body: Bytes before the trailer; the whole file if it has none.
        fault: What is wrong with the trailer, or empty.
    """

    __slots__ = ("body", "fault", "sha256")

    def __init__(self, *, sha256: str, body: int, fault: str) -> None:
        self.sha256, self.body, self.fault = sha256, body, fault


def trailer(digest: bytes) -> bytes:
    """Return the trailer for a body with this SHA-256."""
    return _TRAILER.pack(_SKIPPABLE, _TRAILER.size - 8, _MAGIC, digest)


def digest(data: bytes) -> Digests:
    """Return the digest of a file, and whether its trailer is that of what is before it."""
    body = max(len(data) - _TRAILER.size, 0)
    whole = hashlib.sha256(memoryview(data)[:body])
    expected, found = trailer(whole.digest()), data[body:]
    whole.update(found)
    fault = ""
    if found != expected:
        at = _TRAILER.size - 32
        known = len(found) == _TRAILER.size and found[:at] == expected[:at]
        fault = "the digest is not that of the file" if known else "missing; the file is truncated or altered"
        body = body if known else len(data)
    return Digests(sha256=whole.hexdigest(), body=body, fault=fault)
