"""Scratch folders: one for each process that works, and no longer there than it, however it ends.

A process holds a lock on its folder for as long as it lives. What a killed one leaves, its zygote removes; where that
was killed as well, the next process that needs scratch here, which looks for folders of this user that nobody holds.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import stat
import tempfile
import threading
import time

from gdn_aot._files import flags
from gdn_aot._locks import lock
from gdn_aot.errors import NotWritableError

_NAMES = re.compile(r"gdn-aot-(?:scratch-[a-z0-9_]{8}|node-[0-9a-f]{12})")
"""Of folders that nobody else makes."""
_PRIVATE = 0o700
_FOLDER = os.O_RDONLY | flags("O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC")
_TRIES, _PAUSE = 20, 0.1
"""How often something is tried again, and the seconds between: processes that were killed may be ending meanwhile."""

_lock = threading.Lock()
_roots: dict[str, str] = {}
"""Directory for temporary files -> this process's folder there."""
_held: list[int] = []


def make(kind: str) -> str:
    """Make an empty folder in that of this process, and return its path, which is absolute.

    Raises:
        NotWritableError: There is no room for it.
    """
    try:
        return tempfile.mkdtemp(prefix=f"{kind}-", dir=root())
    except OSError as error:
        where = os.environ.get("TMPDIR") or "the directory for temporary files"
        raise NotWritableError(
            f"cannot write to {where}: {error.strerror or error}", hint="free space there, or set TMPDIR"
        ) from error


def root() -> str:
    """Return the folder of this process; it is made, and what dead ones left removed, when it is asked for first.

    Raises:
        OSError: It cannot be made.
    """
    with _lock:
        place = tempfile.gettempdir()
        if not os.path.isdir(_roots.get(place, "")):  # noqa: PTH112
            sweep(place)
            _roots[place] = _make(place)
        return _roots[place]


def _make(place: str) -> str:
    while True:
        folder = tempfile.mkdtemp(prefix="gdn-aot-scratch-", dir=place)
        if hold(folder):
            return folder


def hold(folder: str) -> bool:
    """Hold a folder of this user until this process ends. Returns whether it is still there.

    Raises:
        OSError: It is no directory, or another user's.
    """
    try:
        descriptor = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return False
    if os.fstat(descriptor).st_uid != os.geteuid():
        os.close(descriptor)
        raise PermissionError(f"{folder} is another user's")
    with contextlib.suppress(OSError):  # a file system without locks: nobody removes it either
        lock(descriptor, shared=True)
    _held.append(descriptor)
    return os.path.isdir(folder)  # noqa: PTH112


def sweep(place: str) -> None:
    """Remove the folders in a directory for temporary files that processes of this user made which are dead now."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if _NAMES.fullmatch(entry.name):
                remove_left(entry.path, tries=1)


def remove_left(folder: str, *, tries: int = _TRIES) -> None:
    """Remove a folder if it is ours and nobody holds it, or lets it go soon."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, _FOLDER)
        try:
            there = os.fstat(descriptor)
            ours = there.st_uid == os.geteuid() and stat.S_IMODE(there.st_mode) == _PRIVATE
            if ours and _locked(descriptor, tries):
                remove(folder)
        finally:
            os.close(descriptor)


def _locked(descriptor: int, tries: int) -> bool:
    for number in range(tries):
        try:
            lock(descriptor, wait=False)
        except BlockingIOError:
            if number < tries - 1:
                time.sleep(_PAUSE)
        else:
            return True
    return False


def remove(folder: str) -> None:
    """Remove a folder, though processes that still end may write to it."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        time.sleep(_PAUSE)


@atexit.register
def end() -> None:
    """Remove what this process has."""
    while _roots:
        remove(_roots.popitem()[1])
    _forget()


def _forget() -> None:
    """Let go of everything; in a forked child it is the parent's, which holds it through descriptors of its own."""
    _roots.clear()
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):  # where there is no fork, nothing is to be forgotten
    os.register_at_fork(after_in_child=_forget)
