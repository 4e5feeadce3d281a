"""Files: looked at before they are read, written whole or not at all, their digests, and TOML.

Imports nothing that a serving process waits for.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import sys

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from os import PathLike
    from typing import Any

_CHUNK = 1 << 20
"""Bytes read at once."""


def write_whole(
    path: str | PathLike[str], content: bytes, *, sync: bool = False, folder: int | None = None, mode: int = 0o666
) -> None:
    """Write a file under another name in its directory, which must be there, and rename it.

    Whoever reads ``path`` sees what was there before or all of ``content``, which ``sync`` has on the disk before the
    file takes its name. ``path`` may be a name in the directory that the descriptor ``folder`` is of; the umask takes
    from ``mode``.

    Raises:
        OSError: It cannot be written; nothing of it is left.
    """
    temporary = os.path.join(os.path.dirname(path), f".tmp-{os.urandom(8).hex()}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, mode, dir_fd=folder), "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def open_regular(path: str | PathLike[str], *, folder: int | None = None, follow: bool = True) -> int:
    """Open a regular file to read it, and return its descriptor.

    Nothing is waited for: neither whoever is to write a FIFO, nor a device. ``path`` may be relative to the descriptor
    of a ``folder``; with ``follow`` off it may not be a symbolic link itself.

    Raises:
        OSError: It is not there, cannot be read, or is no regular file.
        ValueError: The path has a NUL in it.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    try:
        file = os.open(path, flags, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise OSError(errno.ELOOP, "is a symbolic link", os.fspath(path)) from None
        if error.errno == errno.ENXIO:
            raise _irregular(path) from None  # a socket, or a device without a driver
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _irregular(path)
    return file


def check_size(file: int, limit: int, path: str | PathLike[str]) -> int:
    """Return the bytes of an open file.

    Raises:
        OSError: They are more than ``limit``.
    """
    size = os.fstat(file).st_size
    if size > limit:
        raise OSError(errno.EFBIG, f"is larger than {limit} bytes", os.fspath(path))
    return size


def _irregular(path: str | PathLike[str]) -> OSError:
    return OSError(errno.EINVAL, "is not a regular file", os.fspath(path))


def read_regular(path: str | PathLike[str], limit: int, *, folder: int | None = None, follow: bool = True) -> bytes:
    """Return what a regular file holds; see `open_regular`.

    Raises:
        OSError: As there, or it has more than ``limit`` bytes.
        ValueError: As there.
    """
    with os.fdopen(open_regular(path, folder=folder, follow=follow), "rb") as file:
        return file.read(check_size(file.fileno(), limit, path))


def file_sha256(path: str | PathLike[str], limit: int = 1 << 32) -> str:
    """Return the SHA-256 of a regular file, in hexadecimal.

    Raises:
        OSError: It cannot be read, is no regular file, or has more than ``limit`` bytes.
    """
    digest = hashlib.sha256()
    with os.fdopen(open_regular(path), "rb") as file:
        left = check_size(file.fileno(), limit, path)
        while chunk := file.read(min(left, _CHUNK)):
            left -= len(chunk)
            digest.update(chunk)
    return digest.hexdigest()


def is_there(path: str | PathLike[str]) -> bool:
    """Say whether something is at a path. A path that none can have names nothing, where pathlib may raise."""
    return os.path.exists(path)


def is_folder(path: str | PathLike[str]) -> bool:
    """Say whether a path is that of a directory; see `is_there`."""
    return os.path.isdir(path)


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
