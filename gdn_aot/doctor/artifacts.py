"""Artifacts in the store or in files: whether each can be read, fits what is installed here, and is whole."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from gdn_aot._files import file_sha256
from gdn_aot.errors import GdnAotError
from gdn_aot.serving.find import unfit
from gdn_aot.store.index import Index
from gdn_aot.store.index_writer import write_index
from gdn_aot.store.install import read_manifest
from gdn_aot.store.store import MANIFEST
from gdn_aot.store.store import artifact_files as files_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.doctor.store import StoreView
    from gdn_aot.machine.devices import Device
    from gdn_aot.store.index_records import KernelRecord

_UNREADABLE = (GdnAotError, OSError, ValueError, LookupError, TypeError, AttributeError)
"""What reading a file can raise that is damaged or of another version."""
_MOST_DAMAGE = 5
"""Damaged blobs of one artifact that are named; more are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Covered:
    """A model that an artifact was built for."""

    name: str
    tp: int
    dtype: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A kernel that an artifact has and that cannot be served here."""

    kernel: str
    """``module:qualname``."""
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Lacking:
    """A kernel, or some autotune keys of it, that the build did not cover."""

    kernel: str
    reason: str
    keys: int
    """Autotune keys; 0 stands for the whole kernel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactState:
    """One artifact and what was decided about it."""

    path: str
    """Where it was found: its file, or its directory in the store."""
    accepted: bool
    """It can be read and was made for the installed provider and Triton."""
    reason: str
    """``fits``, or why not."""
    directory: str | None = None
    """Where it is in the store. A file that is not there is verified and unpacked by the next start."""
    identifier: str | None = None
    """None where it cannot be read, as the other facts about its content."""
    sha256: str | None = None
    target: str | None = None
    capability: tuple[int, int] | None = None
    provider: str | None = None
    """``fla-core 0.6.0``, what it was made for."""
    triton: str | None = None
    devices: tuple[int, ...] = ()
    """Devices here that it is for."""
    workloads: tuple[str, ...] = ()
    models: tuple[Covered, ...] = ()
    kernels: tuple[str, ...] = ()
    choices: int = 0
    binaries: int = 0
    refused: tuple[Refused, ...] = ()
    """Kernels whose installed source files are not those that it was built from. Only an accepted artifact's are
    looked at; whether their text and globals are the same is decided when their module is imported."""
    not_covered: tuple[Lacking, ...] = ()
    damage: tuple[str, ...] = ()
    """What of it is missing or damaged in the store."""


class _Rest(NamedTuple):
    """What of a manifest is not in the index."""

    blobs: Mapping[str, int]
    """Bytes of each, by SHA-256."""
    not_covered: tuple[Lacking, ...]


def installed_artifacts(view: StoreView, devices: Sequence[Device], *, deep: bool) -> tuple[ArtifactState, ...]:
    """Examine every artifact of a store.

    Args:
        view: The store.
        devices: What is present.
        deep: Read every record and blob, and check their digests.
    """
    return tuple(_installed(view, place, devices, deep=deep) for place in view.places)


def artifact_files(view: StoreView, path: str, devices: Sequence[Device], *, deep: bool) -> tuple[ArtifactState, ...]:
    """Examine an artifact file, or each in a directory; nothing is unpacked.

    Args:
        view: The store, which may have them.
        path: What ``GDN_AOT_ARTIFACT`` holds.
        devices: What is present.
        deep: Read every record and blob, and check their digests.
    """
    try:
        return tuple(_file(view, file, devices, deep=deep) for file in files_of(path))
    except OSError as error:
        return (ArtifactState(path=path, accepted=False, reason=_text(error)),)


def _file(view: StoreView, file: str, devices: Sequence[Device], *, deep: bool) -> ArtifactState:
    try:
        place = view.store.artifact_directory(file_sha256(file))
        if place:
            return replace(_installed(view, place, devices, deep=deep), path=file)
        from gdn_aot.artifact.verify import open_artifact

        artifact = open_artifact(file)
        index = Index.in_memory(write_index(artifact.manifest, artifact.sha256))
        return _state(file, index, _rest(artifact.manifest), devices)
    except _UNREADABLE as error:
        return ArtifactState(path=file, accepted=False, reason=_text(error))


def _installed(view: StoreView, place: str, devices: Sequence[Device], *, deep: bool) -> ArtifactState:
    try:
        index = view.store.open_index(place)
        rest = _Rest({}, ())
        damage = []
        try:
            rest = _read_rest(place, deep=deep)
        except _UNREADABLE as error:
            damage.append(f"{place}/{MANIFEST}: {_text(error)}")
        wrong = [*_wrong_blobs(view, rest.blobs, deep=deep)]
        damage += wrong[:_MOST_DAMAGE]
        if len(wrong) > _MOST_DAMAGE:
            damage.append(f"and {len(wrong) - _MOST_DAMAGE} blobs more")
        if deep:
            damage += _wrong_records(index)
        return replace(_state(place, index, rest, devices), directory=place, damage=tuple(damage))
    except _UNREADABLE as error:
        return ArtifactState(path=place, accepted=False, reason=_text(error), directory=place)


def _state(path: str, index: Index, rest: _Rest, devices: Sequence[Device]) -> ArtifactState:
    header = index.header
    reason = unfit(index)
    kernels = index.kernels()
    major, minor = header["capability"]
    return ArtifactState(
        path=path,
        accepted=not reason,
        reason=reason or "fits",
        identifier=header["identifier"],
        sha256=header["sha256"],
        target=header["target"],
        capability=(major, minor),
        provider=f"{header['distribution']} {header['version']}",
        triton=header["triton"],
        devices=tuple(device.index for device in devices if device.capability == (major, minor)),
        workloads=tuple(header["workloads"]),
        models=tuple(Covered(name=row["name"], tp=row["tp"], dtype=row["dtype"]) for row in header["models"]),
        kernels=tuple(kernel.name for kernel in kernels),
        choices=header["choices"],
        binaries=header["binaries"],
        refused=() if reason else tuple(_refused(kernels)),
        not_covered=rest.not_covered,
    )


def _read_rest(place: str, *, deep: bool) -> _Rest:
    """Read what the index lacks. Checking all of a manifest takes three times as long as all else here."""
    content = read_manifest(place)
    if deep:
        from gdn_aot.artifact.manifest_json import load_manifest

        return _rest(load_manifest(content))
    raw = json.loads(content)
    blobs = {str(blob["sha256"]): int(blob["size"]) for blob in raw["blobs"]}
    lacking = tuple(
        Lacking(kernel=str(item["kernel"]), reason=str(item["reason"]), keys=len(item["keys"]))
        for item in raw["not_covered"]
    )
    return _Rest(blobs, lacking)


def _rest(manifest: Manifest) -> _Rest:
    return _Rest(
        {blob.sha256: blob.size for blob in manifest.blobs},
        tuple(Lacking(kernel=item.kernel, reason=item.reason, keys=len(item.keys)) for item in manifest.not_covered),
    )


def _wrong_blobs(view: StoreView, blobs: Mapping[str, int], *, deep: bool) -> Iterator[str]:
    for sha256, size in blobs.items():
        found = view.sizes.get(sha256)
        if found is None:
            yield f"{view.store.root}/packs: blob {sha256} is missing or cannot be read"
        elif found != size:
            yield f"{view.store.root}/packs: blob {sha256} has {found} bytes, expected {size}"
        elif deep:
            try:
                view.store.read_blob(sha256)
            except _UNREADABLE as error:
                yield _text(error)


def _wrong_records(index: Index) -> Iterator[str]:
    try:
        index.check()
    except _UNREADABLE as error:
        yield _text(error)


def _refused(kernels: Sequence[KernelRecord]) -> Iterator[Refused]:
    digests: dict[str, str | None] = {}
    for kernel in kernels:
        root = _site(kernel.module)
        if root is None:
            yield Refused(kernel=kernel.name, reason=f"there is no module {kernel.module} here")
            continue
        for source, expected in kernel.sources:
            path = f"{root}/{source}"
            if path not in digests:
                digests[path] = _digest(path)
            if digests[path] != expected:
                what = "is missing" if digests[path] is None else "is not the file that the artifact was built from"
                yield Refused(kernel=kernel.name, reason=f"{path} {what}")
                break


def _site(module: str) -> str | None:
    """Return the directory that a module's package would be imported from, without importing any of it."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    inner = "".join(f"/{name}" for name in rest)
    for folder in (spec and spec.submodule_search_locations) or ():
        for path, depth in ((f"{folder}{inner}/__init__.py", len(rest) + 2), (f"{folder}{inner}.py", len(rest) + 1)):
            if os.path.isfile(path):
                root = os.path.realpath(path)
                for _ in range(depth):
                    root = os.path.dirname(root)
                return root
    return None


def _digest(path: str) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None


def _text(error: BaseException) -> str:
    if isinstance(error, (GdnAotError, OSError)):
        return str(error) or type(error).__name__
    return f"it is damaged: {type(error).__name__}: {error}"
