"""Files: written whole or not at all, and their digests. Imports nothing that a serving process would wait for."""

from __future__ import annotations

import contextlib
import hashlib
import os

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from os import PathLike

_CHUNK = 1 << 20
"""Bytes read at once."""


def write_whole(path: str | PathLike[str], content: bytes, *, sync: bool = False) -> None:
    """Write a file under another name in its directory, which must be there, and rename it.

    Whoever reads ``path`` sees what was there before or all of ``content``.

    Args:
        path: The file; one that is there is replaced.
        content: What it is to hold.
        sync: Have the content on the disk before the file takes its name.

    Raises:
        OSError: It cannot be written; nothing of it is left.
    """
    temporary = os.path.join(os.path.dirname(path), f".tmp-{os.urandom(8).hex()}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def file_sha256(path: str | PathLike[str]) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
