"""Is an installed artifact whole? The one answer to it: for the loader, the registry, the commands and doctor."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress

from gdn_aot.errors import (
    GdnAotError,
    KeyringError,
    Problem,
    SignatureError,
    UnreadableError,
    UntrustedError,
    UsageError,
    VerificationError,
)
from gdn_aot.store.folder import is_hidden, open_place
from gdn_aot.store.store import Store
from gdn_aot.store.stored import MANIFEST, PACK, StoredArtifact, read_manifest

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.trust.statement import Statement

UNREADABLE = (GdnAotError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading a file can raise that is damaged or of another version."""


class Hidden(Problem):
    """Something that cannot be read here: for whoever may read it, it may be whole."""

    __slots__ = ()


def faults(place: str, *, deep: bool = False) -> list[Problem]:
    """Return what is wrong with an installed artifact; nothing if it is whole.

    Its index opens and has all of its records, its pack has the bytes that the index speaks of, its manifest is there.
    ``deep`` compares every record, every blob, the manifest and the name of the directory with their digests too.
    """
    return list(_faults(place, deep=deep))


def find_installed(store: Store, sha256: str) -> str | None:
    """Return the directory of an artifact if it is there and whole as `faults` sees it without ``deep``, else None.

    Raises:
        UnknownFormatError: A newer gdn-aot made the store.
        UnreadableError: It cannot be read.
    """
    for place in store.artifacts():
        if place.endswith(f"-{sha256[:16]}") and not faults(place):
            with suppress(OSError, VerificationError):  # it was just removed
                if store.open_index(place).header["sha256"] == sha256:
                    return place
    return None


def open_installed(path: str) -> StoredArtifact:
    """Open an installed artifact by its directory, ``.../store/artifacts/NAME``, as ``gdn-aot fetch`` prints it.

    Raises:
        UsageError: That is no artifact of a store.
        UnknownFormatError: A newer gdn-aot made the store.
        UnreadableError: It, or the store, cannot be read.
        VerificationError: It is not whole, as `faults` sees it; a kind of its own if it may not be used.
    """
    place = os.path.realpath(path).replace(os.sep, "/")
    root = os.path.dirname(os.path.dirname(place))
    if os.path.basename(root) != "store" or place not in Store(os.path.dirname(root)).artifacts():
        hint = "name a gdn-aot-*.tar.zst file, or a directory that gdn-aot fetch printed"
        raise UsageError(f"{path} is no artifact of a store", hint=hint)
    problems = faults(place)
    if hidden := [problem for problem in problems if isinstance(problem, Hidden)]:
        raise UnreadableError(f"the artifact {place} cannot be read", hidden)
    if problems:
        try:
            StoredArtifact(place)
        except (KeyringError, SignatureError, UntrustedError):
            raise
        except UNREADABLE:
            pass
        hint = "gdn-aot fetch installs it again"
        raise VerificationError(f"the artifact {place} is damaged", problems, hint=hint)
    return StoredArtifact(place)


def signer_of(place: str) -> tuple[str, int] | None:
    """Return the id of the key that has signed an installed artifact and its serial; None if none counts here."""
    from gdn_aot.trust.statement import Statement

    with suppress(*UNREADABLE):
        stored = StoredArtifact(place)
        return (stored.key, Statement.read(stored.release)[0].serial) if stored.key else None
    return None


def is_signed(place: str, statement: Statement) -> bool:
    """Say whether an installed artifact has the index that a statement is about; one of another format may be."""
    from gdn_aot.store.index import FORMAT

    expected = statement.index_sha256.get(str(FORMAT))
    with suppress(*UNREADABLE):
        return expected in (None, StoredArtifact(place, judged=False).index.root)
    return False


def said(error: BaseException) -> str:
    """Return in one line what an error of `UNREADABLE` says."""
    if isinstance(error, OSError) and is_hidden(error):
        return f"cannot be read: {error.strerror or error} ({error.filename})"
    if isinstance(error, (GdnAotError, OSError)):
        return str(error) or type(error).__name__
    return f"it is damaged: {type(error).__name__}: {error}"


def problems_of(where: str, error: BaseException) -> list[Problem]:
    """Return what an error of `UNREADABLE` says is wrong, of something that has no better place than ``where``."""
    if isinstance(error, VerificationError) and error.problems:
        return list(error.problems)
    if isinstance(error, OSError):
        what, at = error.strerror or str(error), str(error.filename or where)
        return [Hidden(at, f"cannot be read: {what}") if is_hidden(error) else Problem(at, what)]
    return [Problem(where, said(error))]


def _faults(place: str, *, deep: bool) -> Iterator[Problem]:
    try:
        stored = StoredArtifact(place)
        index, pack = stored.index, f"{place}/{PACK}"
        index.check(deep=deep)
        blobs = index.blobs()
        expected = sum(size for _, size in blobs)
        if stored.size != expected:
            yield Problem(pack, f"has {stored.size} bytes, expected {expected}")
        if deep:
            identifier, sha256 = index.header["identifier"], index.header["sha256"]
            if os.path.basename(place) != f"{identifier}-{sha256[:16]}":
                yield Problem(place, f"is the directory of {identifier} of SHA-256 {sha256}")
            for blob, _ in blobs:
                try:
                    stored.read_blob(blob)
                except VerificationError as error:
                    yield from error.problems
            if hashlib.sha256(read_manifest(place)).hexdigest() != index.header["manifest_sha256"]:
                yield Problem(f"{place}/{MANIFEST}", "is not the manifest that the index was made of")
        else:
            with open_place(place) as folder:
                manifest = folder.file(MANIFEST)
            empty = not os.fstat(manifest).st_size
            os.close(manifest)
            if empty:
                yield Problem(f"{place}/{MANIFEST}", "is empty")
    except UNREADABLE as error:
        yield from problems_of(place, error)
