"""Put a verified artifact into a store, whole or not at all.

In this order, so that whoever is killed leaves nothing that a reader could take for whole: the blobs that the store
lacks, as one pack; the artifact's directory under a temporary name; its renaming. All of it under the store's lock.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gdn_aot._files import write_whole
from gdn_aot.errors import GdnAotError, NotWritableError, VerificationError
from gdn_aot.store.index import NAME as INDEX
from gdn_aot.store.lock import locked
from gdn_aot.store.origins import ORIGIN, identity, outdate, read_origins, with_origin
from gdn_aot.store.pack_writer import TEMPORARY, PackThread
from gdn_aot.store.store import FORMAT, MANIFEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.store.origins import Origin
    from gdn_aot.store.pack import Pack
    from gdn_aot.store.store import Store

_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by gdn-aot; may be deleted: https://bford.info/cachedir/\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """What `install` did."""

    place: str
    """Directory of the artifact."""
    identifier: str
    sha256: str
    """Of the artifact file."""
    new: bool
    """It was not there before."""
    repaired: int
    """Blobs and files of an artifact that was there which were missing or damaged, and were written again."""
    written: int
    """Bytes written."""


class Content(Protocol):
    """What is installed: a `gdn_aot.artifact.verify.Artifact`, or something that stands for one."""

    @property
    def manifest(self) -> Manifest:
        """Return the manifest, checked."""

    @property
    def manifest_json(self) -> bytes:
        """Return its JSON."""

    @property
    def sha256(self) -> str:
        """Return that of the artifact file."""

    def iter_blobs(self) -> Iterable[tuple[str, bytes]]:
        """Return (SHA-256, content) of every blob, checked."""


def install(
    store: Store, artifact: Content, origin: Origin | None = None, *, waiting: Callable[[str], None] | None = None
) -> Installed:
    """Put a verified artifact into the store. Safe to run in many processes at once.

    An artifact that is already there is checked and, where it is damaged, repaired. It becomes the one installed last,
    which the loader prefers.

    Args:
        store: Where to.
        artifact: What `open_artifact` returned.
        origin: Where it came from, if that was a registry.
        waiting: Told, after two seconds, which process has the store locked.

    Raises:
        NotWritableError: The store cannot be written.
        UnknownFormatError: A newer gdn-aot made the store.
        VerificationError: The artifact file changed while it was read.
    """
    with writing(store, waiting, make=True):
        return put(store, artifact, origin)


def put(store: Store, artifact: Content, origin: Origin | None = None) -> Installed:
    """Do what `install` does, inside `writing`.

    Raises:
        OSError: The store cannot be written.
        VerificationError: The artifact file changed while it was read.
    """
    from gdn_aot.store.index_writer import write_index
    from gdn_aot.store.sweep import drop_damaged

    place = f"{store.root}/artifacts/{artifact.manifest.identifier}-{artifact.sha256[:16]}"
    new = not os.path.isdir(place)
    packs, damaged = store.packs(), set[str]()
    lacking = {sha256: blob for sha256, blob in artifact.iter_blobs() if not _has(packs, sha256, damaged)}
    writer, pack = PackThread(f"{store.root}/packs", lacking), None
    try:
        try:
            index = write_index(artifact.manifest, artifact.sha256)
            files = _files(place, artifact.manifest_json, index, origin)
        finally:
            pack = writer.finish()
        if new:
            _put_directory(store, place, files)
        else:
            for name, data in files.items():
                write_whole(f"{place}/{name}", data, sync=True)
        if damaged:
            drop_damaged(store, damaged)
        outdate(store, place, origin)
        os.utime(place)
    except BaseException:
        if new and pack is not None:
            with suppress(OSError):
                os.unlink(pack)
        raise
    return Installed(
        place=place,
        identifier=artifact.manifest.identifier,
        sha256=artifact.sha256,
        new=new,
        repaired=0 if new else len(lacking) + sum(name != ORIGIN for name in files),
        written=sum(map(len, (*lacking.values(), *files.values()))),
    )


def find_installed(store: Store, sha256: str, sizes: Mapping[str, int] | None = None) -> str | None:
    """Return the directory of an artifact if it is whole by cheap checks, else None.

    Its index opens, its manifest is there, and so is every blob with its size.

    Args:
        store: Where to look.
        sha256: Of the artifact file.
        sizes: What `Store.blob_sizes` returns, for who asks of many artifacts.
    """
    with suppress(OSError, GdnAotError, ValueError, LookupError, TypeError):
        place = store.artifact_directory(sha256)
        if place is None:
            return None
        index = store.open_index(place)
        if index.header["sha256"] == sha256 and index.is_long_enough() and os.path.getsize(f"{place}/{MANIFEST}"):
            sizes = store.blob_sizes() if sizes is None else sizes
            if all(sizes.get(blob) == size for blob, size in index.blobs()):
                return place
    return None


def renew(
    store: Store, place: str, origin: Origin | None = None, *, waiting: Callable[[str], None] | None = None
) -> None:
    """Note that an installed artifact was asked for again: where it came from, and that the loader is to prefer it.

    Nothing is written where that is so already.

    Args:
        store: The store.
        place: The artifact's directory, as `find_installed` returns it.
        origin: Where it came from this time, if that is known.
        waiting: Told, after two seconds, which process has the store locked.

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
                for name, data in with_origin(place, origin).items():
                    write_whole(f"{place}/{name}", data, sync=True)
                outdate(store, place, origin)
                os.utime(place)
    except NotWritableError as error:
        if first != place:
            reason = f"{first} is preferred to {place}, which cannot be changed: {error.message}"
            raise NotWritableError(reason, hint=error.hint) from error


@contextmanager
def writing(
    store: Store, waiting: Callable[[str], None] | None = None, *, make: bool = False
) -> Iterator[dict[str, int]]:
    """Be the only one who changes a store. What others left unfinished is removed first.

    Yields the bytes of each thing that was left unfinished, by its path.

    Args:
        store: The store.
        waiting: Told, after two seconds, which process has the lock.
        make: Make the store if there is none.

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


def read_manifest(place: str) -> bytes:
    """Return the JSON of the manifest of an installed artifact.

    Raises:
        OSError: It is not there or cannot be read.
        VerificationError: It is damaged.
    """
    import zstandard

    from gdn_aot.artifact.manifest_json import MAX_BYTES
    from gdn_aot.errors import Problem

    path = f"{place}/{MANIFEST}"
    with open(path, "rb") as file:
        content = file.read()
    with suppress(zstandard.ZstdError):
        if zstandard.get_frame_parameters(content).content_size <= MAX_BYTES:
            return zstandard.ZstdDecompressor().decompress(content, allow_extra_data=False)
    raise VerificationError(f"{path} is damaged", [Problem(path, "is not a compressed manifest")])


def temporaries(store: Store) -> Iterator[str]:
    """Yield what a process that was killed left unfinished in a store. Only to be removed under the lock."""
    root = store.root
    folders = [root, f"{root}/packs", f"{root}/artifacts"]
    with suppress(OSError):
        names = [name for name in os.listdir(folders[-1]) if not name.startswith(TEMPORARY)]
        folders += [place for place in map(f"{folders[-1]}/{{}}".format, names) if not os.path.islink(place)]
    for folder in folders:
        with suppress(OSError):
            for name in os.listdir(folder):
                if name.startswith(TEMPORARY):
                    yield f"{folder}/{name}"


def size_of(path: str) -> int:
    """Return the bytes of a file, or of all files in a directory; symbolic links count as themselves.

    What cannot be read or is removed meanwhile counts nothing.
    """
    with suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            return sum(size_of(f"{path}/{name}") for name in os.listdir(path))
        return os.lstat(path).st_size
    return 0


def discard(path: str) -> None:
    """Remove a file, or a directory with all that is in it; a symbolic link is removed and not followed.

    Raises:
        OSError: It cannot be removed.
    """
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _prepare(store: Store) -> dict[str, int]:
    """Bring a store into a state to go on from; returns the bytes of what was removed, by its path."""
    store.format()
    leftovers = {path: size_of(path) for path in temporaries(store)}
    for path in leftovers:
        discard(path)
    for name, text in (("CACHEDIR.TAG", _TAG), ("format", f"{FORMAT}\n")):
        if not _holds(f"{store.root}/{name}", text.encode()):
            write_whole(f"{store.root}/{name}", text.encode(), sync=name == "format")
    for name in ("artifacts", "packs"):
        os.makedirs(f"{store.root}/{name}", exist_ok=True)
    return leftovers


def _has(packs: list[Pack], sha256: str, damaged: set[str]) -> bool:
    """Say whether a blob is there and right; one that is there and is not is added to those damaged."""
    name = bytes.fromhex(sha256)
    for pack in packs:
        with suppress(OSError):
            content = pack.read(name)
            if content is not None and hashlib.sha256(content).digest() == name:
                return True
            if content is not None:
                damaged.add(sha256)
    return False


def _holds(path: str, content: bytes) -> bool:
    with suppress(OSError), open(path, "rb") as file:
        return file.read() == content
    return False


def _files(place: str, manifest: bytes, index: bytes, origin: Origin | None) -> dict[str, bytes]:
    """Return the files of an artifact's directory that are not there as they should be; the index comes last."""
    import zstandard

    files = (
        {}
        if _has_manifest(place, manifest)
        else {MANIFEST: zstandard.ZstdCompressor(level=3, write_checksum=True).compress(manifest)}
    )
    files |= with_origin(place, origin)
    return files if _holds(f"{place}/{INDEX}", index) else {**files, INDEX: index}


def _has_manifest(place: str, manifest: bytes) -> bool:
    try:
        return read_manifest(place) == manifest
    except (OSError, VerificationError):
        return False


def _put_directory(store: Store, place: str, files: dict[str, bytes]) -> None:
    temporary = f"{store.root}/artifacts/{TEMPORARY}{os.urandom(8).hex()}"
    os.mkdir(temporary)
    try:
        for name, data in files.items():
            with open(f"{temporary}/{name}", "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        os.rename(temporary, place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
