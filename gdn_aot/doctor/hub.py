"""Kernel packages in the caches of the Hugging Face Hub that hold copies of a provider: does an artifact serve them.

Nothing of them is imported, and nothing is asked of the network. What is compared is the text of each kernel and of
the functions that it calls; the values of globals are compared when a process imports the package.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import os
from collections import defaultdict
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot._files import read_regular
from gdn_aot._text import shown
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.doctor.section import SHOWN, Section
from gdn_aot.machine.kernel_package import find_packages, repository
from gdn_aot.store.stored import StoredArtifact
from gdn_aot.store.whole import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gdn_aot.doctor.artifacts import ArtifactState
    from gdn_aot.store.index_records import KernelRecord

_MOST = 200
"""Folders of one kind that are looked at."""
_LARGEST = 1 << 20
"""Bytes of a source file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubPackage:
    """A copy of a provider in a cache of the Hub."""

    repository: str
    revision: str
    folder: str
    provider: str
    artifact: str | None
    """The identifier of the artifact that has most kernels of it; None if none has any."""
    same: int
    """Kernels of that artifact whose text, with that of all they call, is the package's."""
    other: tuple[str, ...]
    """Those whose text differs."""
    command: str
    """Builds for the package; empty where nothing differs."""


def read_hub(artifacts: Sequence[ArtifactState]) -> Section:
    """Look through the caches of the Hub, and compare with artifacts that fit and are whole."""
    known = [(artifact, _records(artifact)) for artifact in artifacts if artifact.accepted]
    found = [package for place in _caches() for package in _in_cache(place, known)]
    lines = [line for package in found for line in _lines(package)]
    return Section(title="hub kernels", facts=list(map(asdict, found)), lines=tuple(lines or ["  none"]))


def _caches() -> list[Path]:
    """Return the caches that huggingface_hub and kernels use with this environment."""
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    named = (os.environ.get("KERNELS_CACHE"), os.environ.get("HF_HUB_CACHE") or f"{home}/hub")
    return [Path(place) for place in dict.fromkeys(os.path.expanduser(one) for one in named if one)]


def _in_cache(place: Path, known: Sequence[tuple[ArtifactState, list[KernelRecord]]]) -> Iterator[HubPackage]:
    for snapshot in islice(_glob(place, "*--*--*/snapshots/*"), _MOST):
        for info in PROVIDERS.values():
            for folder in _packages(snapshot, info.marker) if info.marker else ():
                yield _compared(folder, snapshot.name, info.name, known)


def _packages(snapshot: Path, marker: str) -> list[Path]:
    try:
        return find_packages(str(snapshot), marker)
    except OSError:  # another user's: a process of this one loads nothing from it
        return []


def _glob(place: Path, pattern: str) -> list[Path]:
    try:
        return sorted(place.glob(pattern))
    except OSError:
        return []


def _compared(
    folder: Path, revision: str, provider: str, known: Sequence[tuple[ArtifactState, list[KernelRecord]]]
) -> HubPackage:
    texts = functools.cache(_texts)
    best: tuple[int, str | None, str, tuple[str, ...]] = (0, None, "", ())
    for artifact, records in known:
        same = [record.name for record in records if _is_same(folder, record, texts)]
        if len(same) > best[0]:
            other = tuple(record.name for record in records if record.name not in same)
            best = (len(same), artifact.identifier, artifact.target or "", other)
    target = best[2] or next((artifact.target for artifact, _ in known if artifact.target), None) or "TARGET"
    command = f"gdn-aot build --arch {target} --provider {provider} --package {folder} --model NAME"
    return HubPackage(
        repository=repository(folder),
        revision=revision,
        folder=str(folder),
        provider=provider,
        artifact=best[1],
        same=best[0],
        other=best[3],
        command="" if best[0] and not best[3] else command,
    )


def _records(artifact: ArtifactState) -> list[KernelRecord]:
    try:
        if artifact.directory is not None:
            return StoredArtifact(artifact.directory).index.kernels()
        from gdn_aot.artifact.verify import open_artifact
        from gdn_aot.store.index import Index
        from gdn_aot.store.index_writer import write_index

        return Index.in_memory(write_index(open_artifact(artifact.path))).kernels()
    except UNREADABLE:
        return []


def _is_same(folder: Path, record: KernelRecord, texts: functools._lru_cache_wrapper[dict[str, set[str]]]) -> bool:
    package = record.module.partition(".")[0]
    needed = [(record.module, record.qualname, record.source_sha256)]
    needed += [row[1:] for row in record.dependencies if row[3]]
    return all(
        module.partition(".")[0] == package and expected in texts(_file(folder, module)).get(name, ())
        for module, name, expected in needed
    )


def _file(folder: Path, module: str) -> Path:
    place = folder.joinpath(*module.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _texts(file: Path) -> dict[str, set[str]]:
    """Return the SHA-256 of the text of each function of a file, by name: of one name there may be several."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    try:
        text = read_regular(str(file), _LARGEST).decode()
        tree = ast.parse(text)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return found
    lines = text.splitlines(keepends=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
            block = "".join(inspect.getblock(lines[start:]))
            found[node.name].add(hashlib.sha256(block.encode()).hexdigest())
    return found


def _lines(package: HubPackage) -> Iterator[str]:
    yield f"  {shown(package.repository)} {shown(package.revision[:12])}"
    yield f"    folder  {shown(package.folder, 1000)}"
    if package.artifact is None:
        yield "    served  nothing: no artifact here has a kernel of this source"
    else:
        yield f"    served  {package.same} of {package.same + len(package.other)} kernels of {package.artifact}"
    for name in package.other[:SHOWN]:
        yield f"      differs: {shown(name)}"
    if len(package.other) > SHOWN:
        yield f"      and {len(package.other) - SHOWN} more"
    if package.command:
        yield f"    build   {shown(package.command, 1000)}"
