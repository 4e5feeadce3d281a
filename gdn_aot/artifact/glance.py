"""What an artifact file says of itself before it is verified: enough to say whether it fits. Quick to import and do.

Nothing is decided by it that is not looked at again when the file is verified.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from gdn_aot.artifact import tar
from gdn_aot.artifact.container import Frame, FrameError
from gdn_aot.artifact.header import header_of
from gdn_aot.artifact.names import FORMAT
from gdn_aot.errors import VerificationError

if TYPE_CHECKING:
    from gdn_aot.artifact.trailer import Digests

_MOST_TEXT, _MOST_OBJECTS, _MOST_VALUES = 16 << 20, 60_000, 1_000_000
"""Bytes, braces, and brackets and commas of a manifest that are parsed at most: a host waits for it. One for all models
has 3.1 MB and 12,000 braces; what has more than this is not unpacked in memory."""


def glance(data: bytes, digests: Digests) -> dict[str, Any]:
    """Return the header that the index of an artifact gets, from the bytes of its file, whose trailer is sound.

    Raises:
        VerificationError: It is not an artifact.
    """
    try:
        frame = Frame(memoryview(data)[: digests.body])
        size = tar.content_size(frame.read(tar.BLOCK))
        text = frame.read(size) if size is not None and size <= _MOST_TEXT else b""
        if _is_small(text) and not (frame.cut or frame.leftover):
            manifest = json.loads(text)
            if manifest["format"] == FORMAT:
                return header_of(manifest, digests.sha256, hashlib.sha256(text).hexdigest())
    except (FrameError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        pass
    raise VerificationError("it is not a sound artifact: gdn-aot verify says why")


def _is_small(text: bytes) -> bool:
    objects = text.count(b"{")
    return objects <= _MOST_OBJECTS and objects + text.count(b"[") + text.count(b",") <= _MOST_VALUES and text.isascii()
