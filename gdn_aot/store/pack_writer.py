"""Writing a pack; see `gdn_aot.store.pack`."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from gdn_aot.store.pack import FIXED, MAGIC, ROW

if TYPE_CHECKING:
    from collections.abc import Mapping

TEMPORARY = ".tmp-"
"""How the names of what is not finished begin."""


class PackThread:
    """Writes a pack while something else is done: most of it is waiting for the disk.

    Args:
        directory, blobs: As `write_pack` takes them; without blobs there is no pack.
    """

    def __init__(self, directory: str, blobs: Mapping[str, bytes]) -> None:
        self._directory, self._blobs = directory, blobs
        self._path: str | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._path = write_pack(self._directory, self._blobs) if self._blobs else None
        except BaseException as error:  # noqa: BLE001 - it is raised where the pack is asked for
            self._error = error

    def finish(self) -> str | None:
        """Wait until the pack is on the disk, and return its path.

        Raises:
            OSError: It cannot be written; nothing of it is left.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._path


_BATCH = 512
"""Buffers written in one call; Linux takes up to 1024."""


def write_pack(directory: str, blobs: Mapping[str, bytes]) -> str:
    """Write blobs into a new pack, which is there whole and on the disk, or not at all. Return its path.

    Args:
        directory: Where to; it must be there. The pack's name follows from what is in it.
        blobs: Contents by SHA-256.

    Raises:
        OSError: It cannot be written; nothing of it is left.
    """
    names = sorted(blobs)
    offset, rows = FIXED.size + ROW.size * len(names), []
    for name in names:
        rows.append(ROW.pack(bytes.fromhex(name), offset, len(blobs[name])))
        offset += len(blobs[name])
    table = b"".join(rows)
    path = f"{directory}/{hashlib.sha256(table).hexdigest()[:32]}"
    temporary = f"{directory}/{TEMPORARY}{os.urandom(8).hex()}"
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            _write_all(file, [FIXED.pack(MAGIC, len(names)), table, *(blobs[name] for name in names)])
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return path


def _write_all(file: int, buffers: list[bytes]) -> None:
    """Write buffers one after another, a few hundred in a call."""
    for start in range(0, len(buffers), _BATCH):
        batch = [memoryview(buffer) for buffer in buffers[start : start + _BATCH]]
        while batch:
            written = os.writev(file, batch)
            while batch and written >= len(batch[0]):
                written -= len(batch.pop(0))
            if written:
                batch[0] = batch[0][written:]
