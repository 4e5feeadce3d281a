"""Artifacts in the store or in files: whether each can be read, fits what is installed here, and is whole."""

from __future__ import annotations

import functools
import importlib.util
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot._files import file_sha256
from gdn_aot._text import plural
from gdn_aot.artifact.cached import SWITCH
from gdn_aot.artifact.cost import MIB, Cost, Reserve, cost_of, reserve_on, warning
from gdn_aot.catalogue.targets import known_target
from gdn_aot.doctor.section import SHOWN, Section, columns
from gdn_aot.serving.find import Fit, fit, open_file, unfit
from gdn_aot.serving.settings import asked
from gdn_aot.store.stored import StoredArtifact, UnpackedArtifact
from gdn_aot.store.whole import UNREADABLE, faults, said

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gdn_aot.machine.devices import Device
    from gdn_aot.store.index import Index
    from gdn_aot.store.index_records import KernelRecord
    from gdn_aot.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Covered:
    """A model that an artifact was built for."""

    name: str
    tp: int
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} tp {self.tp} {self.dtype}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unserved:
    """A kernel, or some autotune keys of it, that an artifact does not serve here."""

    kernel: str
    """``module:qualname``."""
    reason: str
    keys: int = 0
    """Autotune keys; 0 stands for the whole kernel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactState:
    """One artifact and what was decided about it."""

    path: str
    """Where it was found: its file, or its directory in the store."""
    accepted: bool
    """It can be read, is for the installed Triton, and some of it is from the source of the installed provider."""
    reason: str
    """``fits``, how much of it does, or why nothing."""
    signed: str = ""
    """Who has signed it, and the id of the key; empty if no signature of it counts here."""
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
    card: str = ""
    """Product name of the GPU of the one deployment that it was built for, if of one."""
    compile_cache: int = 0
    """Files of the compile cache of an engine, which runs them on the host."""
    workloads: tuple[str, ...] = ()
    models: tuple[Covered, ...] = ()
    kernels: tuple[str, ...] = ()
    choices: int = 0
    binaries: int = 0
    refused: tuple[Unserved, ...] = ()
    """Kernels whose installed source files are not those that it was built from. Only an accepted artifact's are
    looked at; whether their text and globals are the same is decided when their module is imported."""
    not_covered: tuple[Unserved, ...] = ()
    """What the build left out."""
    damage: tuple[str, ...] = ()
    """What of it is missing or damaged in the store."""
    cost: Cost | None = None
    """What it costs on a card. Only an accepted artifact's is looked at, and of those with a device for them here."""
    reserves: tuple[Reserve, ...] = ()
    """What its local memory comes to on each of `devices`; where there is no device at all, on the card that stands for
    its target."""

    @property
    def served(self) -> list[str]:
        """The kernels that are not refused."""
        refused = {item.kernel for item in self.refused}
        return [kernel for kernel in self.kernels if kernel not in refused]


def examine(store: Store, path: str, devices: Sequence[Device], *, deep: bool) -> ArtifactState:
    """Look at an artifact file or a directory of the store; nothing is unpacked. If deep, compare digests."""
    place = path if os.path.isdir(path) else None
    try:
        artifact = StoredArtifact(place) if place else open_file(store, path)
        state = replace(_state(path, artifact.index, devices), signed=_signer(artifact))
        state = _with_cost(state, artifact, devices)
        place = None if isinstance(artifact, UnpackedArtifact) else artifact.place
        return replace(state, directory=place, damage=tuple(map(str, faults(place, deep=deep))) if place else ())
    except UNREADABLE as error:
        return ArtifactState(path=path, accepted=False, reason=said(error), directory=place)


def _signer(artifact: StoredArtifact) -> str:
    return f"{artifact.publisher}, key {artifact.key}" if artifact.key else ""


def _with_cost(state: ArtifactState, artifact: StoredArtifact, devices: Sequence[Device]) -> ArtifactState:
    """Add what an artifact costs here, if it fits and its manifest can be read."""
    if not state.accepted or (devices and not state.devices):
        return state
    try:
        cost = cost_of(artifact.manifest)
    except UNREADABLE:  # what is wrong with it is said otherwise
        return state
    target = known_target(state.target) if state.target else None
    own = [device for device in devices if device.index in state.devices and device.sm_count]
    named = [(f"device {device.index} ({device.name or 'without a name'})", device.sm_count or 0) for device in own]
    places = named if devices else [("", 0)]
    reserves = [reserve_on(target, cost.local, card=card, sm_count=count) for card, count in places] if target else ()
    return replace(state, cost=cost, reserves=tuple(reserves))


def artifacts_section(artifacts: Sequence[ArtifactState], devices: Sequence[Device]) -> Section:
    """Return the accept/reject trace."""
    lines = [line for artifact in artifacts for line in _lines(artifact, devices)]
    return Section(title="artifacts", facts=list(map(asdict, artifacts)), lines=tuple(lines or ["  none"]))


def _state(path: str, index: Index, devices: Sequence[Device]) -> ArtifactState:
    header = index.header
    kernels = index.kernels()
    reason = unfit(header)
    found = Fit(accepted=False, reason=reason) if reason else fit(header, lambda: kernels)
    major, minor = header["capability"]
    return ArtifactState(
        path=path,
        accepted=found.accepted,
        reason=found.reason,
        identifier=header["identifier"],
        sha256=header["sha256"],
        target=header["target"],
        capability=(major, minor),
        provider=f"{header['distribution']} {header['version']}",
        triton=header["triton"],
        devices=tuple(device.index for device in devices if device.capability == (major, minor)),
        card=header.get("card", ""),
        compile_cache=header.get("compile_cache", 0),
        workloads=tuple(header["workloads"]),
        models=tuple(Covered(name=row["name"], tp=row["tp"], dtype=row["dtype"]) for row in header["models"]),
        kernels=tuple(kernel.name for kernel in kernels),
        choices=header["choices"],
        binaries=header["binaries"],
        refused=tuple(_refused(kernels)) if found.accepted and not found.elsewhere else (),
        not_covered=tuple(Unserved(kernel=kernel, reason=why, keys=keys) for kernel, why, keys in index.not_covered()),
    )


def _lines(artifact: ArtifactState, devices: Sequence[Device]) -> Iterator[str]:
    yield f"  {artifact.identifier or artifact.path}: {'accepted' if artifact.accepted else 'rejected'}"
    rows: list[tuple[str, object]] = []
    if not artifact.accepted or artifact.reason != "fits":
        rows.append(("reason", artifact.reason))
    if artifact.accepted and devices:
        rows.append(("devices", artifact.devices or f"none of those here is {artifact.target}"))
    if artifact.card:
        rows.append(("card", artifact.card))
        others = [one for one in devices if one.index in artifact.devices and one.name not in (None, "", artifact.card)]
        rows += [
            ("warning", f"device {one.index} is {one.name}: kernels whose tiles follow the card's name are not served")
            for one in others
        ]
    if artifact.compile_cache:
        files = f"{plural(artifact.compile_cache, 'file')} of vLLM's compile cache"
        rows.append(("host code", f"{files}: {'vLLM gets them' if asked(SWITCH) else f'not without {SWITCH}=1'}"))
    if artifact.identifier:
        rows.append(("path", artifact.path))
        rows.append(("signed", artifact.signed or "no signature of it counts here"))
        if artifact.directory is None:
            rows.append(("store", "not there yet: the next start verifies and unpacks it"))
        made = f"{plural(len(artifact.kernels), 'kernel')}, {artifact.choices} choices, {artifact.binaries} binaries"
        rows.append(("content", f"{made}; {', '.join(artifact.workloads)}"))
        rows.append(("models", artifact.models))
    if artifact.cost:
        rows += _memory(artifact.cost, artifact.reserves)
    rows += [("damage", text) for text in artifact.damage[:SHOWN]]
    if len(artifact.damage) > SHOWN:
        rows.append(("damage", f"and {len(artifact.damage) - SHOWN} more"))
    yield from columns(rows, "    ")


def _memory(cost: Cost, reserves: Sequence[Reserve]) -> Iterator[tuple[str, object]]:
    yield "code", f"{cost.code / MIB:.1f} MiB on the card, if all of it is loaded"
    if not cost.spills:
        yield "local memory", "none"
        return
    yield "local memory", str(cost.spills[0])
    for reserve in reserves:
        yield "reserve", str(reserve)
        if text := warning(reserve):
            yield "warning", text


def _refused(kernels: Sequence[KernelRecord]) -> Iterator[Unserved]:
    digest = functools.cache(_digest)
    for kernel in kernels:
        root = _site(kernel.module)
        if root is None:
            yield Unserved(kernel=kernel.name, reason=f"there is no module {kernel.module} here")
            continue
        for path, expected in ((f"{root}/{source}", expected) for source, expected in kernel.sources):
            if digest(path) != expected:
                what = "is missing" if digest(path) is None else "is not the file that the artifact was built from"
                yield Unserved(kernel=kernel.name, reason=f"{path} {what}")
                break


def _site(module: str) -> str | None:
    """Return the directory that a module's package would be imported from, without importing any of it."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for folder in (spec and spec.submodule_search_locations) or ():
        place = "/".join((folder, *rest))
        for path, depth in ((f"{place}/__init__.py", len(rest) + 1), (f"{place}.py", len(rest))):
            if os.path.isfile(path):
                return str(Path(path).resolve().parents[depth])
    return None


def _digest(path: str) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None
