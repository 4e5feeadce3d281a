"""Whether cubins are what a manifest says of them: target, kernel, parameters, threads, registers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdn_aot.artifact.elf import describe
from gdn_aot.errors import Problem, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.launches import Json

_POINTER = 8
_SIZES = {"i1": 1, "u1": 1, "i8": 1, "u8": 1, "i16": 2, "u16": 2, "fp16": 2, "bf16": 2}
_SIZES |= {"i32": 4, "u32": 4, "fp32": 4, "f32": 4, "i64": 8, "u64": 8, "fp64": 8}
"""Triton's type names -> bytes of a parameter; pointers begin with ``*``."""
_SCRATCH = (_POINTER, _POINTER)
"""What Triton adds to the parameters of a signature: global and profile scratch."""
_OTHER = ("tensordesc<", "nvTmaDesc")
"""How types begin that come to several parameters, which are not counted here."""
_WARP = 32


class Cubins:
    """What the binaries of a manifest say of the cubins that they are in."""

    def __init__(self, manifest: Manifest) -> None:
        major, minor = manifest.target.capability
        self._arch = 10 * major + minor
        self._wanted: dict[str, dict[tuple[Any, ...], None]] = {}
        parameters: dict[int, tuple[int, ...] | None] = {}  # by the id of signatures: what is the same is one object
        for kernel in manifest.kernels:
            for binary in kernel.binaries:
                signature, metadata, resources = binary.specialization.signature, binary.metadata, binary.resources
                if id(signature) not in parameters:
                    parameters[id(signature)] = parameters_of(signature)
                wanted = (
                    metadata["name"],
                    metadata["num_warps"],
                    parameters[id(signature)],
                    resources.registers,
                    resources.local,
                )
                self._wanted.setdefault(binary.cubin, {})[wanted] = None

    def problems(self, sha256: str, content: memoryview) -> Iterator[Problem]:
        """Yield what contradicts the manifest in a blob; nothing in one that is no cubin of it."""
        if sha256 not in self._wanted:
            return
        where = f"blobs/{sha256}"
        try:
            info = describe(content)
        except VerificationError as error:
            yield from (Problem(where, problem.what) for problem in error.problems)
            return
        if info.arch != self._arch:
            yield Problem(where, f"is of sm_{info.arch}, not sm_{self._arch}")
        for name, warps, parameters, registers, local in self._wanted[sha256]:
            entry = info.entries.get(name)
            if entry is None:
                yield Problem(where, f"holds no kernel {name}")
                continue
            if parameters is not None and entry.parameters != parameters:
                taken, said = (", ".join(map(str, sizes)) or "no" for sizes in (entry.parameters, parameters))
                yield Problem(where, f"takes parameters of {taken} bytes, but a signature has {said}")
            if entry.threads not in (None, warps * _WARP):
                yield Problem(where, f"is for blocks of {entry.threads} threads, not {warps * _WARP}")
            if (info.registers, info.local) != (registers, local):
                found = f"{info.registers} registers and {info.local} bytes of local memory"
                yield Problem(where, f"takes {found}, not {registers} and {local}")


def parameters_of(signature: dict[str, Json]) -> tuple[int, ...] | None:
    """Return the bytes of each parameter of a kernel, or None if they cannot be told."""
    sizes = [size for kind in signature.values() for size in _sizes(kind)]
    return None if None in sizes else (*(size for size in sizes if size is not None), *_SCRATCH)


def is_known(kind: Json) -> bool:
    """Say whether a type of a signature, or each of a tuple argument, is one that Triton has."""
    if isinstance(kind, list):
        return all(map(is_known, kind))
    name = str(kind)
    return name == "constexpr" or name[:1] == "*" or name in _SIZES or name.startswith(_OTHER)


def _sizes(kind: Json) -> Iterator[int | None]:
    if isinstance(kind, list):
        for inner in kind:
            yield from _sizes(inner)
    elif kind != "constexpr":
        name = str(kind)
        yield _POINTER if name[:1] == "*" else _SIZES.get(name)
