"""Find the artifacts that fit what is installed here, and say of every other one why it does not.

Nothing of the provider, Triton or CUDA is imported: versions are read from the names of ``.dist-info`` directories,
and the device is looked at later, by the kernels that run on it.
"""

from __future__ import annotations

from functools import partial

from gdn_aot._plain import Plain
from gdn_aot._text import shown
from gdn_aot.artifact.names import MAX_FILE
from gdn_aot.artifact.trailer import digest
from gdn_aot.errors import GdnAotError, NotWritableError, UnknownFormatError, VerificationError
from gdn_aot.machine import installed
from gdn_aot.machine.owners import read_owned
from gdn_aot.serving import log
from gdn_aot.store.admission import admit, check_admitted
from gdn_aot.store.folder import is_hidden
from gdn_aot.store.index import checked_header
from gdn_aot.store.store import Store, artifact_files
from gdn_aot.store.stored import StoredArtifact, UnpackedArtifact, release_beside
from gdn_aot.store.whole import UNREADABLE, find_installed, said

_MOST_PLACES = 1000
"""Artifacts that are looked at."""
_HUB_KERNELS = "kernels"
"""The distribution that loads copies of providers from the Hugging Face Hub."""
_PATIENCE = 0.005
"""Seconds that others are waited for who just look whether the store can be changed."""
TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from gdn_aot.store.index import Index
    from gdn_aot.store.index_records import KernelRecord


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


def find(home: str, only: str | None) -> tuple[list[StoredArtifact], list[Verdict]]:
    """Look at every artifact that the loader may use: those of the store, or ``only`` a file or a directory of files.

    Returns the artifacts that fit, those of the installed versions before those of others that have the same source, of
    these those with more kernels first, and a verdict on each that was looked at, first on those that cannot be read.
    Without a ``home`` there is no store.
    """
    installed.forget()
    found: list[StoredArtifact] = []
    verdicts: list[Verdict] = []
    store = Store(home) if home else None
    try:
        places = artifact_files(only) if only else store.artifacts() if store else []
    except (GdnAotError, OSError) as error:
        return [], [Verdict(shown(only or home, 1000), accepted=False, reason=shown(said(error), 1000))]
    if len(places) > _MOST_PLACES:
        log.warn(f"looking only at the first {_MOST_PLACES} of {len(places)} artifacts in {shown(only or home)}")
    hidden: list[Verdict] = []
    fitting: list[tuple[StoredArtifact, Verdict]] = []
    refused: list[Verdict] = []
    for place in places[:_MOST_PLACES]:
        try:
            artifact = _taken_in(store, place) if only else StoredArtifact(place, judged=False)
            reason = unfit(artifact.header)
        except UNREADABLE as error:
            verdict = Verdict(shown(place, 1000), accepted=False, reason=shown(said(error), 1000))
            (hidden if is_hidden(error) else verdicts).append(verdict)
            continue
        verdict = Verdict(shown(artifact.header["identifier"]), accepted=not reason, reason=reason)
        verdicts.append(verdict)
        if not reason:
            fitting.append((artifact, verdict))
    for (artifact, verdict), fault in zip(fitting, admit([one for one, _ in fitting], home), strict=True):
        if fault is None:
            fit = _fit(artifact)
            artifact.elsewhere, verdict.accepted, verdict.reason = fit.elsewhere, fit.accepted, fit.reason
            artifact.same = (fit.same, fit.of) if fit.of else None
            if artifact.key and fit.accepted:
                verdict.reason += f"; signed by {shown(artifact.publisher)}, key {artifact.key}"
            found += [artifact] * fit.accepted
        else:
            verdict.artifact, verdict.accepted = shown(artifact.place, 1000), False
            verdict.reason = shown(fault, 1000)
            refused.append(verdict)
    for verdict in [*hidden, *refused] if found else ():  # else it is what `install` says
        log.warn(f"artifact {verdict.artifact} is not used: {verdict.reason}")
    return sorted(found, key=_first), hidden + verdicts


def unfit(header: Mapping[str, Any]) -> str:
    """Return why nothing of an artifact can fit what is installed, or nothing; see `fit` for what else is asked."""
    foreign = {module.partition(".")[0] for module in header["modules"]}.difference(header["packages"])
    if foreign:
        return f"it has kernels of {shown(min(foreign))}, which is not of {shown(header['distribution'])}"
    if not header.get("copy") and installed.version(header["distribution"]) is None and not _serves_copies():
        return f"{shown(header['distribution'])} is not installed"
    return _other("triton", header["triton"])


class Fit(Plain):
    """How an artifact fits that is not `unfit`.

    Args:
        accepted: Something of it may fit.
        reason: How much of it does, or why nothing.
        elsewhere: Why it can only serve copies of its source in other packages, or nothing.
        same, of: Of one for another version than is installed, how many of its kernels have the source that is.
    """

    __slots__ = ("accepted", "elsewhere", "of", "reason", "same")

    def __init__(self, *, accepted: bool, reason: str, elsewhere: str = "", same: int = 0, of: int = 0) -> None:
        self.accepted, self.reason, self.elsewhere = accepted, reason, elsewhere
        self.same, self.of = same, of


def fit(header: Mapping[str, Any], kernels: Callable[[], list[KernelRecord]]) -> Fit:
    """Return how an artifact fits that is not `unfit`.

    Releases of a provider often have kernels in common. Of an artifact that was made for another version than is
    installed, those count whose source files are here as they were there; ``kernels`` returns what is known of them,
    and is not called for the installed version. Whether texts and globals are the same, too, is decided when a module
    was imported: `gdn_aot.serving.matching`.

    Raises:
        GdnAotError: What ``kernels`` does.
        OSError: Likewise.
    """
    why, here = _misfit(header), installed.place_of(header["distribution"])
    if why and not header.get("copy") and here is not None:
        known = kernels()
        same = sum(all(map(partial(_is_source, here), one.sources)) for one in known)
        if same:
            said = f"{same} of its {len(known)} kernels have the source that is installed"
            return Fit(accepted=True, reason=f"fits by its source: {why}; {said}", same=same, of=len(known))
        why += ", and no kernel has the same source"
    if not why:
        return Fit(accepted=True, reason="fits")
    if header.get("copy") or _serves_copies():
        return Fit(accepted=True, reason=f"fits packages of the same source alone: {why}", elsewhere=why)
    return Fit(accepted=False, reason=why)


def unfit_index(index: Index) -> str:
    """Return why an artifact serves nothing of the installed provider, or nothing if it may.

    Raises:
        OSError: The index cannot be read.
        VerificationError: It is damaged.
    """
    found = fit(index.header, index.kernels)
    return unfit(index.header) or found.elsewhere or (not found.accepted and found.reason) or ""


def _fit(artifact: StoredArtifact) -> Fit:
    try:
        return fit(artifact.header, lambda: artifact.index.kernels())  # noqa: PLW0108 - reading the index may fail
    except UNREADABLE as error:
        return Fit(accepted=False, reason=shown(said(error), 1000))


def _misfit(header: Mapping[str, Any]) -> str:
    """Return what other version or package than the installed provider an artifact was built from, or nothing."""
    if header.get("copy"):
        return f"built from a copy of {shown(header['provider'])}"
    return _other(header["distribution"], header["version"])


def _first(artifact: StoredArtifact) -> tuple[bool, int]:
    """Return what sorts artifacts: of the installed version first, then those with most of its kernels."""
    same, _ = artifact.same or (0, 0)
    return bool(same or artifact.elsewhere), -same


def _serves_copies() -> bool:
    return installed.place_of(_HUB_KERNELS) is not None


def _is_source(place: str, source: tuple[str, str]) -> bool:
    path, expected = source
    return installed.source_sha256(f"{place}/{path}") == expected


def _other(name: str, wanted: str) -> str:
    version = installed.version(name)
    if version is None:
        return f"{shown(name)} is not installed"
    return "" if version == wanted else f"made for {name} {shown(wanted)}, installed is {shown(version)}"


def open_file(store: Store | None, file: str) -> StoredArtifact:
    """Open an artifact file as it is in the store, or in memory, once it may be used. Nothing is unpacked.

    Raises:
        OSError: It cannot be read.
        UntrustedError: It is not signed, and somebody else than root or this user may have written it.
        VerificationError: It is damaged, or not what its publisher has signed.
    """
    data, foreign = read_owned(file, MAX_FILE)
    digests = digest(data)
    if digests.fault:  # said before anything is imported that takes long
        raise VerificationError(f"{file}: trailer: {digests.fault}")
    place = in_store(store, digests.sha256) if store else None
    if place is not None:
        return StoredArtifact(place)
    from gdn_aot.artifact.glance import glance

    unpacked = UnpackedArtifact(file, data, checked_header(glance(data, digests)), release_beside(file))
    unpacked.foreign = foreign
    check_admitted(unpacked, store.home if store else "")
    return unpacked


def _taken_in(store: Store | None, file: str) -> StoredArtifact:
    """Open an artifact file as it is in the store, which it is put into if it is not there yet.

    Where that cannot be done at once it is unpacked in this process's memory, as far and as soon as it is needed.
    """
    unpacked = open_file(store, file)
    if not isinstance(unpacked, UnpackedArtifact) or unfit(unpacked.header):
        return unpacked
    from gdn_aot.store.lock import taking

    busy, why = taking(store, len(unpacked.data)) if store else (False, "there is no store")
    if store is not None and not why:
        from gdn_aot.artifact.verify import open_bytes
        from gdn_aot.store.install import install

        artifact = open_bytes(unpacked.data, file)
        try:
            return StoredArtifact(install(store, artifact, release=unpacked.release, patience=_PATIENCE).place)
        except (NotWritableError, UnknownFormatError) as error:
            why = error.message
    say = log.info if busy else log.warn
    say(f"{why}; {file} is unpacked in memory{'' if busy else ', in every process again'}")
    return unpacked


def in_store(store: Store, sha256: str) -> str | None:
    """Return the directory of an artifact file if a store that can be read has it, and it is whole."""
    try:
        return find_installed(store, sha256)
    except GdnAotError:
        return None
