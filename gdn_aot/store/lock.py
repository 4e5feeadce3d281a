"""The lock of a store: whoever changes it is alone; the loader, who reads it, takes none.

It is a lock on ``store/.lock``, which the system gives back when a process ends, however it ends. The file stays.
Only who may write the store may open it: whoever can open a file can hold a lock on it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from gdn_aot._files import nearest, read_at, write_at
from gdn_aot._locks import lock
from gdn_aot._text import shown
from gdn_aot.errors import UnknownFormatError, UnreadableError
from gdn_aot.machine.owners import trusts_any, user
from gdn_aot.store.folder import ARTIFACTS, Folder, open_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gdn_aot.store.store import Store

    Waiting = Callable[[str], None]
    """Told in words, after two seconds, which process has the store locked."""

NAME = ".lock"
PATIENCE = 2.0
"""Seconds of waiting after which the user is told."""
_PAUSE = 0.02
"""Seconds between two attempts while the user has not been told."""
_UNPACKED = 16
"""Bytes that a store takes for each byte of an artifact file, about."""
_MOMENT = 0.002
"""Seconds that who only looks gives others who only look."""
_NUMBER = 20
"""Bytes of the lock file that are read: the number of the process that has it."""


@contextmanager
def locked(root: Folder, waiting: Waiting | None = None, *, patience: float | None = None) -> Iterator[None]:
    """Be the only one in a store. Waits for as long as others are, or for ``patience`` seconds.

    Raises:
        OSError: The lock file cannot be made or opened, is none of ours, or others have the store for too long.
    """
    file = _open(root)
    try:
        _wait(file, root.path, waiting, patience)
        _sign(file, str(os.getpid()))
        try:
            yield
        finally:
            _sign(file, "")
    finally:
        os.close(file)


@contextmanager
def undisturbed(store: Store, waiting: Waiting | None = None) -> Iterator[None]:
    """Keep others from changing a store for as long as it is looked at, where that is possible.

    Where there is no lock file, or it cannot be opened, there is nobody who changes the store, or no way to stop them.
    """
    try:
        with open_below(store.home, "store") as root:
            file = _check(root, root.file(NAME))
    except OSError:
        yield
        return
    try:
        _wait(file, store.root, waiting, None, shared=True)
        yield
    finally:
        os.close(file)


def _open(root: Folder) -> int:
    """Open the lock file to write it, which is made if it is not there."""
    while True:
        try:
            return _check(root, root.file(NAME, os.O_RDWR))
        except FileNotFoundError:
            with suppress(FileExistsError):
                made = root.create(NAME, 0o666 if trusts_any() else 0o600)
                if user() == 0:
                    os.fchown(made, root.own_status().st_uid, -1)  # else the store's own user is locked out
                return made


def _check(root: Folder, file: int) -> int:
    """Return the descriptor of a lock file that is ours, and that readers cannot hold."""
    status = os.fstat(file)
    ours = user() is None or status.st_uid in (0, user(), root.own_status().st_uid) or trusts_any()
    text = read_at(file, _NUMBER + 1, 0) if stat.S_ISREG(status.st_mode) and ours and status.st_nlink == 1 else b"?"
    if text.strip(b"0123456789") or len(text) > _NUMBER:
        os.close(file)
        raise OSError(errno.EINVAL, "is not a lock file of gdn-aot", f"{root.path}/{NAME}")
    if stat.S_IMODE(status.st_mode) & 0o077 and user() is not None and not trusts_any():
        with suppress(OSError):
            os.fchmod(file, 0o600)
    return file


def _wait(file: int, root: str, waiting: Waiting | None, patience: float | None, *, shared: bool = False) -> None:
    begin = time.monotonic()
    while True:
        with suppress(BlockingIOError):
            lock(file, shared=shared, wait=False)
            return
        waited = time.monotonic() - begin
        if patience is not None and waited >= patience:
            raise OSError(errno.EBUSY, f"{_holder(file)} is using it", root)
        if waited >= PATIENCE and patience is None:
            break
        time.sleep(_PAUSE if patience is None else min(_PAUSE, patience / 4))
    if waiting is not None:
        waiting(f"waiting for {_holder(file)}, which is using the store {root}")
    lock(file, shared=shared)


def _holder(file: int) -> str:
    owner = read_at(file, _NUMBER, 0).decode("ascii", "replace").strip()
    return f"process {owner}" if owner.isdigit() else "another process"


def _sign(file: int, owner: str) -> None:
    """Leave the number of the process that has the lock, for whoever waits. A full disk is no reason to fail."""
    with suppress(OSError):
        os.ftruncate(file, 0)
        write_at(file, owner.encode(), 0)


def taking(store: Store, size: int) -> tuple[bool, str]:
    """Say, without changing anything, whether a store cannot take an artifact file of this size at once, and why.

    Returns whether that is because another process has it, and the reason, which is empty where nothing is known
    against it: installing may find more.
    """
    try:
        store.format()
        reason = no_room(store.root, size)
        if not reason and os.path.lexists(store.root):
            with open_below(store.home, "store") as root:
                names = root.names()
                if ARTIFACTS in names:
                    root.folder(ARTIFACTS).close()
                if NAME in names:
                    _try(root)
    except (UnknownFormatError, UnreadableError) as error:
        return False, error.message
    except OSError as error:
        return error.errno == errno.EBUSY, f"cannot write the store {store.root}: {error.filename} {error.strerror}"
    return False, reason


def no_room(root: str, size: int) -> str:
    """Return why a store, which need not be there, cannot take an artifact file of this size, or nothing."""
    size *= _UNPACKED
    try:
        os.lstat(root)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return f"cannot write the store {shown(root)}: {error.strerror}"
    place = nearest(root)
    if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):
        return f"cannot write the store {root}: {place} is not a directory that this user may write"
    if _free(place) < size:
        return f"there is no space left for the store {root}"
    if _largest() in range(size):
        return f"this process may not write files as large as the store {root} needs"
    return ""


def _free(place: str) -> int:
    """Return the bytes that this user may still write where a directory is."""
    if hasattr(os, "statvfs"):
        free = os.statvfs(place)
        return free.f_bavail * free.f_frsize
    from shutil import disk_usage  # which takes longer to import than a serving process has

    return disk_usage(place).free


def _largest() -> int:
    """Return the bytes that a file of this process may have at most; -1 where nothing says so."""
    try:
        import resource
    except ImportError:
        return -1
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0]


def _try(root: Folder) -> None:
    """See whether somebody changes the store."""
    file = _check(root, root.file(NAME))
    try:
        _wait(file, root.path, None, _MOMENT)
    finally:
        os.close(file)
