"""Put a verified artifact into a store, whole or not at all.

In this order, so that whoever is killed leaves nothing that a reader could take for whole: the blobs that the store
lacks, as one pack; the artifact's directory under a temporary name; its renaming. All of it under the store's lock.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from gdn_aot._files import write_whole
from gdn_aot.artifact.index import NAME as INDEX
from gdn_aot.artifact.lock import locked
from gdn_aot.artifact.store import FORMAT, MANIFEST, OLDER
from gdn_aot.errors import GdnAotError, NotWritableError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.artifact.store import Store

ORIGIN = "origin.json"
"""File name of the list of `Origin` in an artifact's directory."""
_TEMPORARY = ".tmp-"
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by gdn-aot; may be deleted: https://bford.info/cachedir/\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where an artifact was fetched from."""

    repo: str
    """As its registry names itself; never a token."""
    revision: str
    """Branch, tag or commit that was asked for."""
    commit: str
    """40 hexadecimal digits."""


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
    from gdn_aot.artifact.index_writer import write_index
    from gdn_aot.artifact.pack_writer import write_pack

    place = f"{store.root}/artifacts/{artifact.manifest.identifier}-{artifact.sha256[:16]}"
    new = not os.path.isdir(place)
    index = write_index(artifact.manifest, artifact.sha256)
    lacking = {sha256: blob for sha256, blob in artifact.iter_blobs() if not _has(store, sha256)}
    pack = write_pack(f"{store.root}/packs", lacking) if lacking else None
    try:
        files = _files(place, artifact.manifest_json, index, origin)
        if new:
            _put_directory(store, place, files)
        else:
            for name, data in files.items():
                write_whole(f"{place}/{name}", data, sync=True)
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


def find_installed(store: Store, sha256: str) -> str | None:
    """Return the directory of an artifact if it is whole by cheap checks, else None.

    Its index opens, its manifest is there, and so is every blob with its size.

    Args:
        store: Where to look.
        sha256: Of the artifact file.
    """
    with suppress(OSError, GdnAotError, ValueError, LookupError, TypeError):
        place = store.artifact_directory(sha256)
        if place is None:
            return None
        index = store.open_index(place)
        if index.header["sha256"] == sha256 and os.path.getsize(f"{place}/{MANIFEST}"):
            sizes = store.blob_sizes()
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
                for name, data in _origins(place, origin).items():
                    write_whole(f"{place}/{name}", data, sync=True)
                os.utime(place)
    except NotWritableError as error:
        if first != place:
            reason = f"{first} is preferred to {place}, which cannot be changed: {error.message}"
            raise NotWritableError(reason, hint=error.hint) from error


@contextmanager
def writing(store: Store, waiting: Callable[[str], None] | None = None, *, make: bool = False) -> Iterator[None]:
    """Be the only one who changes a store. What others left unfinished is removed first, an older store upgraded.

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
            _prepare(store)
            yield
    except OSError as error:
        reason = error.strerror or error
        raise NotWritableError(f"cannot write the store {store.root}: {reason}") from error


def identity(place: str) -> str:
    """Return the identifier that the name of an artifact's directory begins with."""
    return os.path.basename(place).rpartition("-")[0]


def read_origins(place: str) -> list[Origin]:
    """Return where the artifact in a directory of the store was fetched from; nothing if that cannot be read."""
    with suppress(OSError, ValueError, TypeError), open(f"{place}/{ORIGIN}", "rb") as file:
        return [Origin(**item) for item in json.load(file)]
    return []


def read_manifest(place: str) -> bytes:
    """Return the JSON of the manifest of an installed artifact.

    Raises:
        OSError: It is not there or cannot be read.
        VerificationError: It is damaged.
    """
    import zstandard

    from gdn_aot.artifact.parse import MAX_BYTES
    from gdn_aot.errors import Problem

    path = f"{place}/{MANIFEST}"
    with open(path, "rb") as file:
        content = file.read()
    try:
        with zstandard.ZstdDecompressor().stream_reader(content) as stream:
            data = stream.read(MAX_BYTES + 1)
            if content and not stream.read(1):
                return data
    except zstandard.ZstdError:
        pass
    raise VerificationError(f"{path} is damaged", [Problem(path, "is not a compressed manifest")])


def temporaries(root: str) -> Iterator[str]:
    """Yield what a process that was killed left unfinished in a store. Only to be removed under the lock."""
    for folder in (root, f"{root}/artifacts", f"{root}/packs"):
        with suppress(OSError):
            for name in os.listdir(folder):
                if name.startswith(_TEMPORARY):
                    yield f"{folder}/{name}"


def discard(path: str) -> None:
    """Remove a file, or a directory with all that is in it; a symbolic link is removed and not followed.

    Raises:
        OSError: It cannot be removed.
    """
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _prepare(store: Store) -> None:
    if store.format() in OLDER:
        from gdn_aot.artifact.upgrade import upgrade

        upgrade(store)
    for path in temporaries(store.root):
        discard(path)
    for name, text in (("CACHEDIR.TAG", _TAG), ("format", f"{FORMAT}\n")):
        if not _holds(f"{store.root}/{name}", text.encode()):
            write_whole(f"{store.root}/{name}", text.encode(), sync=True)
    for name in ("artifacts", "packs"):
        os.makedirs(f"{store.root}/{name}", exist_ok=True)


def _has(store: Store, sha256: str) -> bool:
    try:
        store.read_blob(sha256)
    except (OSError, VerificationError):
        return False
    return True


def _holds(path: str, content: bytes) -> bool:
    with suppress(OSError), open(path, "rb") as file:
        return file.read() == content
    return False


def _files(place: str, manifest: bytes, index: bytes, origin: Origin | None) -> dict[str, bytes]:
    """Return the files of an artifact's directory that are not there as they should be; the index comes last."""
    import zstandard

    files = {} if _has_manifest(place, manifest) else {MANIFEST: zstandard.compress(manifest, 3)}
    files |= _origins(place, origin)
    return files if _holds(f"{place}/{INDEX}", index) else {**files, INDEX: index}


def _has_manifest(place: str, manifest: bytes) -> bool:
    try:
        return read_manifest(place) == manifest
    except (OSError, VerificationError):
        return False


def _origins(place: str, origin: Origin | None) -> dict[str, bytes]:
    """Return the file of an artifact's origins with one more, by its name; nothing if that is no news."""
    known = {item.repo: item for item in read_origins(place)}
    if origin is None or known.get(origin.repo) == origin:
        return {}
    known[origin.repo] = origin
    return {ORIGIN: json.dumps([asdict(known[repo]) for repo in sorted(known)], indent=1).encode() + b"\n"}


def _put_directory(store: Store, place: str, files: dict[str, bytes]) -> None:
    temporary = f"{store.root}/artifacts/{_TEMPORARY}{os.urandom(8).hex()}"
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
