"""Files: looked at before they are read, written whole or not at all, their digests, and TOML.

Imports nothing that a serving process waits for. What a system lacks, as Windows does, is done by what it has: see
`flags`, `open_regular` and `read_at`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import sys
from _thread import allocate_lock

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from os import PathLike
    from typing import Any

_CHUNK = 1 << 20
"""Bytes read at once."""


def flags(*names: str) -> int:
    """Return the flags for `os.open` that have these names, of those that this system has."""
    found = 0
    for name in names:
        found |= getattr(os, name, 0)
    return found


_PLAIN = flags("O_CLOEXEC", "O_BINARY")
_NO_WAITING = flags("O_NONBLOCK", "O_NOCTTY")
_NOT_FOLLOWED = flags("O_NOFOLLOW")


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
        new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN
        with os.fdopen(os.open(temporary, new, mode, dir_fd=folder), "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def write_new(path: str | PathLike[str], content: bytes, *, mode: int = 0o666) -> None:
    """Write a file where nothing is, not even a link, and have it on the disk.

    Raises:
        OSError: Something is there, or it cannot be written; nothing of it is left.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN, mode)
    try:
        with os.fdopen(file, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def open_regular(
    path: str | PathLike[str], *, folder: int | None = None, follow: bool = True, access: int = os.O_RDONLY
) -> int:
    """Open a regular file to read it, or for another ``access``, and return its descriptor.

    Nothing is waited for: neither whoever is to write a FIFO, nor a device. ``path`` may be relative to the descriptor
    of a ``folder``; with ``follow`` off it may not be a symbolic link itself. Where the system cannot refuse links, the
    path is looked at first, and what was opened must be what was seen.

    Raises:
        OSError: It is not there, cannot be read, or is no regular file.
        ValueError: The path has a NUL in it.
    """
    seen = None if follow or _NOT_FOLLOWED else _seen(path, folder)
    try:
        file = os.open(path, access | _PLAIN | _NO_WAITING | (0 if follow else _NOT_FOLLOWED), dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise OSError(errno.ELOOP, "is a symbolic link", os.fspath(path)) from None
        if error.errno == errno.ENXIO:
            raise _irregular(path) from None  # a socket, or a device without a driver
        raise
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or not (seen is None or os.path.samestat(seen, status)):
        os.close(file)
        raise _irregular(path)
    return file


def _seen(path: str | PathLike[str], folder: int | None) -> os.stat_result:
    """Return the status of a regular file that no link leads to."""
    status = os.stat(path, dir_fd=folder, follow_symlinks=False)
    if is_link(status):
        raise OSError(errno.ELOOP, "is a symbolic link", os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise _irregular(path)
    return status


def is_link(status: os.stat_result) -> bool:
    """Say whether something that was not followed leads elsewhere: a symbolic link, or a junction of Windows."""
    reparse = getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0)
    return stat.S_ISLNK(status.st_mode) or bool(getattr(status, "st_file_attributes", 0) & reparse)


def _seek_and_read(file: int, size: int, offset: int) -> bytes:
    with _seeking:
        os.lseek(file, offset, os.SEEK_SET)
        return os.read(file, size)


_seeking = allocate_lock()
"""Held from where a position is set until it is read from."""
read_at = getattr(os, "pread", _seek_and_read)
"""`os.pread`, or the like of it among threads: return bytes of an open file from an offset on."""


def write_at(file: int, content: bytes, offset: int) -> None:
    """Write bytes of an open file from an offset on."""
    with _seeking:
        os.lseek(file, offset, os.SEEK_SET)
        os.write(file, content)


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


def is_file(path: str | PathLike[str]) -> bool:
    """Say whether a path is that of a regular file; see `is_there`."""
    return os.path.isfile(path)


def nearest(path: str) -> str:
    """Return the longest part of a path that is there, or its root."""
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


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
