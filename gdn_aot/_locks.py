"""Locks on open files, between processes: the system gives them back when a process ends, however it ends.

``flock`` where there is one. Windows locks a byte, here one that lies far beyond the end of any file of ours and that
nobody reads; a Python without ``fcntl`` on another system does the same. Both know no shared lock: who asks for one is
alone for as long.
"""

from __future__ import annotations

import errno
import importlib
import os
import time
from typing import Any

_FAR = 1 << 40
"""Where the byte is that stands for a file."""
_PAUSE = 0.02
"""Seconds between two attempts where the system itself does not wait."""
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
"""What locking a byte fails with that somebody else has locked."""


def lock(file: int, *, shared: bool = False, wait: bool = True) -> None:
    """Lock an open file until its descriptor is closed.

    A file that is open for reading alone cannot be locked for others everywhere: there it is taken for locked.

    Raises:
        BlockingIOError: Somebody else has it locked, and that is not to be waited for.
        OSError: This system, or the file system, knows no locks.
    """
    fcntl = _module("fcntl")
    if fcntl is not None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        return
    while True:
        try:
            _lock_byte(file)
        except OSError as error:
            if error.errno not in _HELD:
                raise
            if not wait:
                raise BlockingIOError(errno.EAGAIN, "is locked") from None
            time.sleep(_PAUSE)
        else:
            return


def _lock_byte(file: int) -> None:
    os.lseek(file, _FAR, os.SEEK_SET)
    if (msvcrt := _module("msvcrt")) is not None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        return
    if not hasattr(os, "lockf"):
        raise OSError(errno.ENOTSUP, "cannot be locked: this Python has neither fcntl nor msvcrt")
    try:
        os.lockf(file, os.F_TLOCK, 1)
    except OSError as error:
        if error.errno != errno.EBADF:  # open for reading alone
            raise


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
