"""Write an artifact into a directory as an ordinary Triton cache, from the parent's side.

Each file is written whole under a temporary name and renamed, and the one that makes Triton see an entry comes last, so
any number of processes may seed or use the directory at the same time.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gdn_aot._files import is_folder, is_there, read_regular, write_whole
from gdn_aot.building.coverage import check_versions
from gdn_aot.catalogue.providers import build_command
from gdn_aot.catalogue.targets import assembler_version, get_target
from gdn_aot.compiling.client import Worker
from gdn_aot.errors import NoArtifactError, NotWritableError, UsageError
from gdn_aot.machine.variables import changed_code_variable
from gdn_aot.triton_internals.disk_cache import Place, cubin_name, group_name, group_text, keeps_choice, read_entry

if TYPE_CHECKING:
    from gdn_aot.artifact.manifest import Manifest, PackedKernel
    from gdn_aot.artifact.verify import Artifact
    from gdn_aot.store.stored import StoredArtifact

_MAX_CHOICE = 16 << 20
"""Bytes of a file of Triton's cache that has the choice for a key."""
_TABLES = struct.Struct("<QQ")
_TABLES_AT = 32
_SIZES = struct.Struct("<HHHH")
_SIZES_AT = 54
"""Where a 64-bit ELF header has the offsets of its two tables, and the size and number of their rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seeded:
    """What `seed` did. An entry is one binary or one choice."""

    path: str
    """The cache, as an absolute path."""
    binaries: int
    """Entries of the cache that are binaries of the artifact, written or kept."""
    choices: int
    """Likewise choices."""
    written: int
    """Entries written, those repaired included."""
    kept: int
    """Entries that were there and whole."""
    skipped: tuple[dict[str, Any], ...]
    """``kernel``, ``reason``, ``binaries``, ``choices``: what could not be seeded."""


def seed(artifact: Artifact | StoredArtifact, into: Path) -> Seeded:
    """Write every binary and choice of an artifact that fits the installed packages into a Triton cache.

    Keys follow the ``TRITON_*`` and ``FLA_*`` variables of this process, and so hold for processes that have the same.

    Raises:
        UsageError: The provider is not installed or not the artifact's, Triton or ptxas is another version than it
            was made with, or the environment asks for other code.
        NotWritableError: ``into`` is no directory, or a file in it cannot be written.
        NoArtifactError: Nothing in the artifact fits.
    """
    manifest = artifact.manifest
    check_versions(manifest)
    _check_environment(manifest)
    root = Path(os.path.abspath(into))  # noqa: PTH100 - a link on the way must stay: the path is stored
    if is_there(root) and not is_folder(root):
        raise NotWritableError(f"{root} is not a directory", hint="name the directory for TRITON_CACHE_DIR")
    with Worker(manifest.provider.name, get_target(manifest.target.name), keep_settings=True) as worker:
        found = worker.places([_plain(kernel) for kernel in manifest.kernels])
    skipped = tuple(found["skipped"])
    binaries = {Place(**row["place"]): row for row in found["binaries"]}
    choices = {Place(**row["place"]): row["text"] for row in found["choices"]}
    if not binaries and not choices:
        reasons = dict.fromkeys(row["reason"] for row in skipped)
        raise NoArtifactError(
            f"nothing in {manifest.identifier} fits the installed packages: {'; '.join(reasons) or 'it is empty'}",
            hint="build an artifact from the installed packages: "
            + build_command(manifest.provider.name, manifest.target.name),
        )
    writer = _Writer(root)
    for place, row in binaries.items():
        writer.binary(place, row["metadata"], artifact.read_blob(row["cubin"]))
    for place, text in choices.items():
        writer.choice(place, text)
    return Seeded(
        path=str(root),
        binaries=len(binaries),
        choices=len(choices),
        written=writer.written,
        kept=writer.kept,
        skipped=skipped,
    )


def _check_environment(manifest: Manifest) -> None:
    if name := changed_code_variable():
        raise UsageError(
            f"{name} is set and makes Triton compile other code than is in the artifact",
            hint=f"unset {name}, here and for the processes that use the cache",
        )
    ptxas = assembler_version(get_target(manifest.target.name))
    if ptxas is not None and ptxas != manifest.triton.ptxas:
        raise UsageError(
            f"the artifact was assembled by ptxas {manifest.triton.ptxas}, Triton would use {ptxas} here",
            hint="unset TRITON_PTXAS_PATH and TRITON_PTXAS_BLACKWELL_PATH",
        )


def _plain(kernel: PackedKernel) -> dict[str, Any]:
    return {
        "module": kernel.module,
        "qualname": kernel.qualname,
        "cache_key": kernel.cache_key,
        "binaries": [
            {
                "specialization": msgspec.to_builtins(binary.specialization),
                "metadata": binary.metadata,
                "cubin": binary.cubin,
            }
            for binary in kernel.binaries
        ],
        "choices": [
            [choice.key, {**msgspec.to_builtins(choice.config), "kwargs": dict(choice.config.kwargs)}]
            for choice in kernel.choices
        ],
        "relaxations": [relaxed.row for relaxed in kernel.relaxations],
    }


class _Writer:
    """Adds entries to a cache and counts; leaves alone what is whole."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.written = 0
        self.kept = 0

    def binary(self, place: Place, metadata: str, cubin: bytes) -> None:
        """Add a binary: machine code and metadata, then the list that makes Triton see them."""
        stored = read_entry(self._root, place)
        if stored is not None and (stored == cubin or _is_whole(stored)):
            self.kept += 1
            return
        self._put(place, cubin_name(place), cubin)
        self._put(place, place.name, metadata.encode())
        self._put(place, group_name(place), group_text(str(self._root), place).encode())
        self.written += 1

    def choice(self, place: Place, text: str) -> None:
        """Add a choice."""
        try:
            stored = read_regular(self._root / place.directory / place.name, _MAX_CHOICE)
        except OSError:
            stored = b""
        if keeps_choice(stored, text):
            self.kept += 1
            return
        self._put(place, place.name, text.encode())
        self.written += 1

    def _put(self, place: Place, name: str, data: bytes) -> None:
        folder = self._root / place.directory
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, data)
        except OSError as error:
            raise NotWritableError(
                f"cannot write {name} into {folder}: {error.strerror}",
                hint="choose a directory you may write, with free space; existing entries are whole",
            ) from error


def _is_whole(cubin: bytes) -> bool:
    """Say whether a cubin that somebody else stored is as long as its ELF header says."""
    if not cubin.startswith(b"\x7fELF") or len(cubin) < _SIZES_AT + _SIZES.size:
        return False
    programs, sections = _TABLES.unpack_from(cubin, _TABLES_AT)
    size, count, section_size, section_count = _SIZES.unpack_from(cubin, _SIZES_AT)
    return len(cubin) >= int(max(programs + size * count, sections + section_size * section_count))
