"""Find the artifacts that fit what is installed here, and say of every other one why it does not.

Nothing of the provider, Triton or CUDA is imported: versions are read from the names of ``.dist-info`` directories,
and the device is looked at later, by the kernels that run on it.
"""

from __future__ import annotations

from gdn_aot._files import file_sha256
from gdn_aot._plain import Plain
from gdn_aot.errors import GdnAotError, NotWritableError
from gdn_aot.machine import installed
from gdn_aot.serving import log
from gdn_aot.store.index import Index
from gdn_aot.store.store import Store, artifact_files

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from gdn_aot.artifact.verify import Artifact


class Found:
    """An artifact that fits the installed provider and Triton, and the store that its blobs are in."""

    def __init__(self, index: Index, store: Store) -> None:
        self.index, self.store = index, store


class Verdict(Plain):
    """What was decided about one artifact, and why.

    Args:
        artifact: Its identifier, or its path where that could not be read.
        accepted: It is used.
        reason: Why, or why not.
    """

    __slots__ = ("accepted", "artifact", "reason")

    def __init__(self, artifact: str, *, accepted: bool, reason: str) -> None:
        self.artifact, self.accepted, self.reason = artifact, accepted, reason


def find(home: str, only: str | None) -> tuple[list[Found], list[Verdict]]:
    """Look at every artifact that the loader may use.

    Args:
        home: Directory of the store.
        only: A file, or a directory of files, to use instead of what the store holds.

    Returns:
        The artifacts that fit, and a verdict on each that was looked at.
    """
    installed.forget()
    found: list[Found] = []
    verdicts: list[Verdict] = []
    store = Store(home)
    try:
        places = _unpacked(store, only, verdicts) if only else [(store, place) for place in store.artifacts()]
    except (GdnAotError, OSError) as error:
        return [], [Verdict(only or store.root, accepted=False, reason=_text(error))]
    for used, place in places:
        try:
            index = used.open_index(place)
        except (GdnAotError, OSError, ValueError) as error:
            verdicts.append(Verdict(place, accepted=False, reason=_text(error)))
            continue
        reason = unfit(index)
        verdicts.append(Verdict(index.header["identifier"], accepted=not reason, reason=reason or "fits"))
        if not reason:
            found.append(Found(index, used))
    return found, verdicts


def unfit(index: Index) -> str:
    """Return why an artifact does not fit what is installed, or nothing."""
    header = index.header
    for name, wanted in ((header["distribution"], header["version"]), ("triton", header["triton"])):
        version = installed.version(name)
        if version is None:
            return f"{name} is not installed"
        if version != wanted:
            return f"made for {name} {wanted}, installed is {version}"
    return ""


def _unpacked(store: Store, path: str, verdicts: list[Verdict]) -> list[tuple[Store, str]]:
    """Return (store, directory) of an artifact file, or of each in a directory, unpacking what is not there yet."""
    places = []
    for file in artifact_files(path):
        try:
            places.append(_unpack(store, file))
        except (GdnAotError, OSError) as error:
            verdicts.append(Verdict(file, accepted=False, reason=_text(error)))
    return places


def _unpack(store: Store, file: str) -> tuple[Store, str]:
    place = store.artifact_directory(file_sha256(file))
    if place:
        return store, place
    from gdn_aot.artifact.verify import open_artifact
    from gdn_aot.store.install import install

    artifact = open_artifact(file)
    try:
        return store, install(store, artifact, waiting=log.warn).place
    except NotWritableError as error:
        log.warn(f"{error.message}; {file} is unpacked in memory, in every process again")
        return MemoryStore(artifact), file


class MemoryStore(Store):
    """An artifact unpacked in this process's memory, for where no store can be written. Forked children share it."""

    def __init__(self, artifact: Artifact) -> None:
        from gdn_aot.store.index_writer import write_index

        super().__init__("")
        self._blobs = dict(artifact.iter_blobs())
        self._index = Index.in_memory(write_index(artifact.manifest, artifact.sha256))

    def open_index(self, place: str) -> Index:
        """Return the index of the only artifact."""
        del place
        return self._index

    def read_blob(self, sha256: str) -> bytes:
        """Return the content of a blob, which was verified when it was unpacked."""
        if sha256 not in self._blobs:
            raise FileNotFoundError(f"the artifact has no blob {sha256}")
        return self._blobs[sha256]


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
