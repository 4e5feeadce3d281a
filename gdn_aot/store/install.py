"""Put a verified artifact into a store, whole or not at all.

All that it consists of is written into a directory under a temporary name, which is then renamed, so that whoever is
killed leaves nothing that a reader could take for whole. All of it under the store's lock.
"""

from __future__ import annotations

import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot._text import shown
from gdn_aot.artifact.tar import grouped
from gdn_aot.errors import NotWritableError
from gdn_aot.store.folder import ARTIFACTS, Folder, open_below, open_place
from gdn_aot.store.index import NAME as INDEX
from gdn_aot.store.index_writer import write_index
from gdn_aot.store.lock import locked
from gdn_aot.store.origins import identity, outdate, read_origins, with_origin, write_origins
from gdn_aot.store.store import FORMAT, read_format
from gdn_aot.store.stored import MANIFEST, PACK, RELEASE, read_release
from gdn_aot.store.whole import faults

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from gdn_aot.artifact.verify import Artifact
    from gdn_aot.store.lock import Waiting
    from gdn_aot.store.origins import Origin
    from gdn_aot.store.store import Store

TEMPORARY = ".tmp-"
"""How the names of what is not finished begin."""
_PIECE = 4 << 20
"""Bytes of blobs that are written at once."""
_QUEUED = 2
"""Pieces that may wait for the disk; more are not read ahead."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Changing:
    """A store that this process alone changes."""

    store: Store
    root: Folder
    artifacts: Folder
    leftovers: dict[str, int]
    """What others left unfinished and was removed: the bytes of each by its path."""


def install(
    store: Store,
    artifact: Artifact,
    origin: Origin | None = None,
    *,
    release: bytes = b"",
    waiting: Waiting | None = None,
    patience: float | None = None,
) -> Installed:
    """Put a verified artifact, which came from ``origin`` if that was a registry, into the store.

    ``release`` is what its publisher signed of it, which the caller has verified; it replaces what is there.

    Safe to run in many processes at once; ``patience`` is how many seconds others are waited for, at most. An artifact
    that is already there is checked and, where it is damaged, written again. It becomes the one installed last, which
    the loader prefers.

    Raises:
        NotWritableError: The store cannot be written.
        UnknownFormatError: A newer gdn-aot made the store.
        VerificationError: It was opened lazily, and a blob is not what its manifest calls for.
    """
    name = f"{artifact.manifest.identifier}-{artifact.sha256[:16]}"
    place = f"{store.root}/artifacts/{name}"
    with writing(store, waiting, make=True, patience=patience) as changing:
        new = name not in changing.artifacts.names()
        repaired = not new and not _is_installed(place, artifact)
        if new or repaired:
            _put(changing, name, artifact, with_origin(read_origins(place), origin), release, replace=repaired)
        _renew(changing, name, origin, release)
    return Installed(place=place, new=new, repaired=repaired)


def renew(
    store: Store, place: str, origin: Origin | None = None, *, release: bytes = b"", waiting: Waiting | None = None
) -> None:
    """Note that an installed artifact was asked for again: where it came from, and that the loader is to prefer it.

    What its publisher signed of it, if that is given, replaces what is there.

    Nothing is written where that is so already. ``place`` is its directory, as `find_installed` returns it.

    Raises:
        NotWritableError: Another build of the same identifier is preferred, and the store cannot be written. That an
            origin cannot be noted is no error.
    """
    kept = identity(place)
    first = next((other for other in store.artifacts() if identity(other) == kept), place)
    if first == place and (origin is None or origin in read_origins(place)) and release in (b"", read_release(place)):
        return
    try:
        with writing(store, waiting) as changing:
            if os.path.basename(place) in changing.artifacts.names():  # else it was removed meanwhile
                _renew(changing, os.path.basename(place), origin, release)
    except NotWritableError as error:
        if first != place:
            reason = f"{first} is preferred to {place}, which cannot be changed: {error.message}"
            raise NotWritableError(reason, hint=error.hint) from error


@contextmanager
def writing(
    store: Store, waiting: Waiting | None = None, *, make: bool = False, patience: float | None = None
) -> Iterator[Changing]:
    """Be the only one who changes a store, which ``make`` makes if there is none.

    What others left unfinished is removed first. Others are waited for, ``patience`` seconds at most if that is given.

    Raises:
        NotWritableError: The store cannot be written. Any `OSError` inside becomes this.
        UnknownFormatError: A newer gdn-aot made the store.
    """
    try:
        if make:
            os.makedirs(store.home, mode=0o755, exist_ok=True)
            with Folder.at(store.home) as home:
                home.make("store").close()
        with open_below(store.home, "store") as root, locked(root, waiting, patience=patience):
            fresh = read_format(root) is None
            with root.make(ARTIFACTS) as artifacts:
                leftovers = _sweep(root, artifacts)
                if fresh:
                    root.write("CACHEDIR.TAG", _TAG)
                    root.write("format", f"{FORMAT}\n".encode(), sync=True)
                yield Changing(store=store, root=root, artifacts=artifacts, leftovers=leftovers)
    except RecursionError as error:
        raise NotWritableError(f"cannot write the store {shown(store.root)}: the path has too many parts") from error
    except OSError as error:
        where = f"{error.filename} " if error.filename not in (None, store.root) else ""
        reason = error.strerror or error
        raise NotWritableError(f"cannot write the store {store.root}: {where}{reason}") from error


def temporaries(store: Store) -> dict[str, int]:
    """Return what processes that were killed left unfinished: the bytes of each by its path.

    Raises:
        UnknownFormatError: A newer gdn-aot made the store.
    """
    store.format()
    with suppress(OSError), open_below(store.home, "store") as root, root.folder(ARTIFACTS) as artifacts:
        return {f"{folder.path}/{name}": folder.size(name) for folder, name in _temporaries(root, artifacts)}
    return {}


def size_of(path: str) -> int:
    """Return the bytes of all files in a directory whose path may have links in it; links inside count as themselves.

    What cannot be read or is removed meanwhile counts nothing.
    """
    with suppress(OSError), Folder.at(path) as folder:
        return folder.size()
    return 0


def discard_artifact(changing: Changing, name: str) -> None:
    """Remove an artifact's directory: at once for whoever reads, whatever happens meanwhile.

    Raises:
        OSError: It cannot be removed; where it has directories in it, it is none of ours, and stays.
    """
    artifacts = changing.artifacts
    artifacts.check_flat(name)
    temporary = _temporary()
    artifacts.rename(name, temporary)
    artifacts.discard(temporary)


def _put(
    changing: Changing, name: str, artifact: Artifact, origins: tuple[Origin, ...], release: bytes, *, replace: bool
) -> None:
    """Write an artifact's directory, in place of the damaged one if there is one; what is no directory stays."""
    artifacts, temporary = changing.artifacts, _temporary()
    if replace:
        artifacts.folder(name).close()
    with artifacts.make(temporary) as folder:
        try:
            _write(folder, artifact, origins, release)
            if replace:
                aside = _temporary()
                artifacts.rename(name, aside)
                with suppress(OSError):  # what is none of ours in it stays
                    artifacts.discard(aside)
            artifacts.rename(temporary, name)
        except BaseException:
            with suppress(OSError):
                artifacts.discard(temporary)
            raise


def _write(folder: Folder, artifact: Artifact, origins: tuple[Origin, ...], release: bytes) -> None:
    """Write all that an artifact's directory has. Most of it is waiting for the disk, while blobs are checked."""
    with ThreadPoolExecutor(1) as beside, ThreadPoolExecutor(1) as disk, os.fdopen(folder.create(PACK), "wb") as pack:
        small = beside.submit(_write_small, folder, artifact, origins, release)
        queued: deque[Future[None]] = deque()
        for piece in grouped((content for _, content in artifact.iter_blobs()), len, _PIECE):
            queued.append(disk.submit(_write_all, pack.fileno(), piece))
            if len(queued) > _QUEUED:
                queued.popleft().result()
        queued.append(disk.submit(os.fsync, pack.fileno()))
        folder.write(INDEX, write_index(artifact), sync=True)
        for step in (small, *queued):
            step.result()


def _write_small(folder: Folder, artifact: Artifact, origins: tuple[Origin, ...], release: bytes) -> None:
    """Write the files of an artifact's directory that are neither its blobs nor its index."""
    import zstandard

    manifest = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(artifact.manifest_json)
    folder.write(MANIFEST, manifest, sync=True)
    if origins:
        write_origins(folder, origins)
    if release:
        folder.write(RELEASE, release, sync=True)


def _write_all(file: int, contents: list[memoryview]) -> None:
    """Write contents one after another; the system may take fewer bytes than it is given."""
    for start in range(0, len(contents), _MOST):
        left = contents[start : start + _MOST]
        while left:
            written = os.writev(file, left) if hasattr(os, "writev") else os.write(file, left[0])
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if written:
                left[0] = left[0][written:]


def _is_installed(place: str, artifact: Artifact) -> bool:
    """Say whether all that is in a directory is what installing an artifact would put there."""
    expected = write_index(artifact)
    with suppress(OSError), open_place(place) as folder:
        return folder.read(INDEX, len(expected)) == expected and not faults(place, deep=True)
    return False


def _renew(changing: Changing, name: str, origin: Origin | None, release: bytes) -> None:
    place = f"{changing.artifacts.path}/{name}"
    known = read_origins(place)
    origins = with_origin(known, origin)
    with changing.artifacts.folder(name) as folder:
        if origins != known:
            write_origins(folder, origins)
        if release not in (b"", read_release(place)):
            folder.write(RELEASE, release, sync=True)
        outdate(changing.store, place, origin)
        # Of two that are asked for within one tick of the file system's clock, the second is the newer, too.
        first = os.path.basename(changing.store.artifacts()[0])
        now = max(time.time_ns(), changing.artifacts.status(first).st_mtime_ns + 1)
        try:
            folder.touch((now, now))
        except PermissionError:  # it is of another user who trusts us
            folder.touch()


def _temporaries(root: Folder, artifacts: Folder) -> Iterator[tuple[Folder, str]]:
    """Yield (directory, name) of what was left unfinished in a store, in its artifacts too."""
    for name in artifacts.names():
        if not name.startswith("."):
            with suppress(OSError), artifacts.folder(name) as place:
                yield from ((place, entry) for entry in place.names() if entry.startswith(TEMPORARY))
    for folder in (root, artifacts):
        yield from ((folder, name) for name in folder.names() if name.startswith(TEMPORARY))


def _sweep(root: Folder, artifacts: Folder) -> dict[str, int]:
    """Remove what was left unfinished; returns the bytes of each by its path. What is none of ours stays."""
    removed = {}
    for folder, name in _temporaries(root, artifacts):
        size = folder.size(name)
        with suppress(OSError):
            folder.discard(name)
            removed[f"{folder.path}/{name}"] = size
    return removed


def _temporary() -> str:
    return f"{TEMPORARY}{os.urandom(8).hex()}"
