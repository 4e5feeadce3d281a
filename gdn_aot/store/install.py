"""Put a verified artifact into a store, whole or not at all.

All that it consists of is written into a directory under a temporary name, which is then renamed, so that whoever is
killed leaves nothing that a reader could take for whole. All of it under the store's lock.
"""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot._files import write_whole
from gdn_aot.artifact.tar import grouped
from gdn_aot.errors import NotWritableError
from gdn_aot.store.index import NAME as INDEX
from gdn_aot.store.index_writer import write_index
from gdn_aot.store.lock import locked
from gdn_aot.store.origins import identity, outdate, read_origins, with_origin, write_origins
from gdn_aot.store.store import FORMAT
from gdn_aot.store.stored import MANIFEST, PACK
from gdn_aot.store.whole import faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.artifact.verify import Artifact
    from gdn_aot.store.lock import Waiting
    from gdn_aot.store.origins import Origin
    from gdn_aot.store.store import Store

TEMPORARY = ".tmp-"
"""How the names of what is not finished begin."""
_PIECE = 4 << 20
"""Bytes of blobs that are written at once."""
_MOST = 512
"""Buffers that the system is given at once; Linux takes up to 1024."""
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Made by gdn-aot; may be deleted: https://bford.info/cachedir/\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """What `install` did."""

    place: str
    """Directory of the artifact."""
    new: bool
    """It was not there before."""
    repaired: bool
    """It was there and damaged, and was written again."""


def install(
    store: Store, artifact: Artifact, origin: Origin | None = None, *, waiting: Waiting | None = None
) -> Installed:
    """Put a verified artifact, which came from ``origin`` if that was a registry, into the store.

    Safe to run in many processes at once. An artifact that is already there is checked and, where it is damaged,
    written again. It becomes the one installed last, which the loader prefers.

    Raises:
        NotWritableError: The store cannot be written.
        UnknownFormatError: A newer gdn-aot made the store.
        VerificationError: It was opened lazily, and a blob is not what its manifest calls for.
    """
    place = f"{store.root}/artifacts/{artifact.manifest.identifier}-{artifact.sha256[:16]}"
    with writing(store, waiting, make=True):
        new = not os.path.isdir(place)
        repaired = not new and not _is_installed(place, artifact)
        if new or repaired:
            _put(store, place, artifact, with_origin(read_origins(place), origin))
        _renew(store, place, origin)
    return Installed(place=place, new=new, repaired=repaired)


def renew(store: Store, place: str, origin: Origin | None = None, *, waiting: Waiting | None = None) -> None:
    """Note that an installed artifact was asked for again: where it came from, and that the loader is to prefer it.

    Nothing is written where that is so already. ``place`` is its directory, as `find_installed` returns it.

    Raises:
        NotWritableError: Another build of the same identifier is preferred, and the store cannot be written. That an
            origin cannot be noted is no error.
    """
    kept = identity(place)
    first = next((other for other in store.artifacts() if identity(other) == kept), place)
    if first == place and (origin is None or origin in read_origins(place)):
        return
    try:
        with writing(store, waiting):
            if os.path.isdir(place):  # else it was removed meanwhile
                _renew(store, place, origin)
    except NotWritableError as error:
        if first != place:
            reason = f"{first} is preferred to {place}, which cannot be changed: {error.message}"
            raise NotWritableError(reason, hint=error.hint) from error


@contextmanager
def writing(store: Store, waiting: Waiting | None = None, *, make: bool = False) -> Iterator[dict[str, int]]:
    """Be the only one who changes a store, which ``make`` makes if there is none.

    What others left unfinished is removed first; yields the bytes of each such thing by its path.

    Raises:
        NotWritableError: The store cannot be written. Any `OSError` inside becomes this.
        UnknownFormatError: A newer gdn-aot made the store.
    """
    try:
        if make:
            os.makedirs(store.root, exist_ok=True)
        with locked(store.root, waiting):
            yield _prepare(store)
    except OSError as error:
        reason = error.strerror or error
        raise NotWritableError(f"cannot write the store {store.root}: {reason}") from error


def temporaries(store: Store) -> dict[str, int]:
    """Return what processes that were killed left unfinished: the bytes of each by its path.

    Raises:
        UnknownFormatError: A newer gdn-aot made the store.
    """
    places = [place for place in store.artifacts() if not os.path.islink(place)]
    found: dict[str, int] = {}
    for folder in (store.root, f"{store.root}/artifacts", *places):
        with suppress(OSError):
            paths = [f"{folder}/{name}" for name in os.listdir(folder) if name.startswith(TEMPORARY)]
            found |= {path: size_of(path) for path in paths}
    return found


def size_of(path: str) -> int:
    """Return the bytes of a file, or of all files in a directory; symbolic links count as themselves.

    What cannot be read or is removed meanwhile counts nothing.
    """
    with suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            return sum(size_of(f"{path}/{name}") for name in os.listdir(path))
        return os.lstat(path).st_size
    return 0


def discard_artifact(store: Store, place: str) -> None:
    """Remove an artifact's directory: at once for whoever reads, whatever happens meanwhile.

    Raises:
        OSError: It cannot be removed.
    """
    temporary = _temporary(store)
    os.rename(place, temporary)
    _discard(temporary)


def _put(store: Store, place: str, artifact: Artifact, origins: tuple[Origin, ...]) -> None:
    """Write an artifact's directory, in place of the damaged one if there is one."""
    temporary = _temporary(store)
    os.mkdir(temporary)
    try:
        # Most of writing is waiting for the disk: that of one piece, while the next blobs are checked.
        with ThreadPoolExecutor(1) as beside, ThreadPoolExecutor(1) as disk, open(f"{temporary}/{PACK}", "xb") as pack:
            small = beside.submit(_write_small, temporary, artifact, origins)
            pieces = grouped((content for _, content in artifact.iter_blobs()), len, _PIECE)
            written = [disk.submit(_write_all, pack.fileno(), piece) for piece in pieces]
            synced = disk.submit(os.fsync, pack.fileno())
            write_whole(f"{temporary}/{INDEX}", write_index(artifact), sync=True)
            for step in (small, *written, synced):
                step.result()
        if os.path.isdir(place):
            discard_artifact(store, place)
        os.rename(temporary, place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_small(place: str, artifact: Artifact, origins: tuple[Origin, ...]) -> None:
    """Write the files of an artifact's directory that are neither its blobs nor its index."""
    import zstandard

    manifest = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(artifact.manifest_json)
    write_whole(f"{place}/{MANIFEST}", manifest, sync=True)
    if origins:
        write_origins(place, origins)


def _write_all(file: int, contents: list[memoryview]) -> None:
    """Write contents one after another; the system may take fewer bytes than it is given."""
    for start in range(0, len(contents), _MOST):
        left = contents[start : start + _MOST]
        while left:
            written = os.writev(file, left)
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if written:
                left[0] = left[0][written:]


def _is_installed(place: str, artifact: Artifact) -> bool:
    """Say whether all that is in a directory is what installing an artifact would put there."""
    with suppress(OSError), open(f"{place}/{INDEX}", "rb") as file:
        return file.read() == write_index(artifact) and not faults(place, deep=True)
    return False


def _renew(store: Store, place: str, origin: Origin | None) -> None:
    known = read_origins(place)
    origins = with_origin(known, origin)
    if origins != known:
        write_origins(place, origins)
    outdate(store, place, origin)
    # Of two that are asked for within one tick of the file system's clock, the second is the newer, too.
    now = max(time.time_ns(), os.stat(store.artifacts()[0]).st_mtime_ns + 1)
    os.utime(place, ns=(now, now))


def _prepare(store: Store) -> dict[str, int]:
    """Bring a store into a state to go on from; returns the bytes of what was removed, by its path."""
    fresh = store.format() is None
    leftovers = temporaries(store)
    for path in leftovers:
        _discard(path)
    if fresh:
        write_whole(f"{store.root}/CACHEDIR.TAG", _TAG)
        write_whole(f"{store.root}/format", f"{FORMAT}\n".encode(), sync=True)
    os.makedirs(f"{store.root}/artifacts", exist_ok=True)
    return leftovers


def _temporary(store: Store) -> str:
    return f"{store.root}/artifacts/{TEMPORARY}{os.urandom(8).hex()}"


def _discard(path: str) -> None:
    """Remove a file, or a directory with all that is in it; a symbolic link is removed and not followed."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
