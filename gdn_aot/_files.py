"""Files: written whole or not at all, their digests, and TOML. Imports nothing that a serving process waits for."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from os import PathLike
    from typing import Any

_CHUNK = 1 << 20
"""Bytes read at once."""


def write_whole(path: str | PathLike[str], content: bytes, *, sync: bool = False) -> None:
    """Write a file under another name in its directory, which must be there, and rename it.

    Whoever reads ``path`` sees what was there before or all of ``content``, which ``sync`` has on the disk before the
    file takes its name.

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


def parse_toml(text: str) -> dict[str, Any]:
    """Return what a TOML document holds.

    Raises:
        ValueError: It is none.
        RecursionError: It is nested too deep.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)
