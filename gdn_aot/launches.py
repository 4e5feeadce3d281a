"""The words of every stage, each once: what a configuration, a kernel, a specialization and a compiled kernel are.

They are records of `gdn_aot.codec`, so that files, caches and the pipes between processes hold them alike.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gdn_aot.codec import Digest, Integer, NoDigest, Record, unbounded
from gdn_aot.errors import Problem
from gdn_aot.problems import kind, step

if TYPE_CHECKING:
    from collections.abc import Iterator

Scalar = None | bool | Integer | float | str
if TYPE_CHECKING:
    Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
    """Any JSON value; `gdn_aot.codec.unbounded` bounds it where it comes from a file."""
else:
    Json = Any
Key = tuple[Scalar, ...]
"""An autotune key."""
KernelKey = tuple[str, Key]
"""``module:qualname`` of a kernel, and one of its autotune keys."""
ArgumentPath = tuple[Integer, ...]
"""Position of an argument, with further indices into tuple arguments."""
MAX_ITEMS = 1024
"""Values in one piece of free JSON, lists and objects included; those of GDN kernels have up to 120."""
_NO_JSON = ("inf", "-inf", "nan")
"""Numbers that JSON lacks."""


def comparable(key: Key) -> str:
    """Return text that is the same for autotune keys that Triton takes for equal: 1, True and 1.0 are.

    To be put into sets and dictionaries in place of keys of other people's files: those can hold any number of tuples
    of integers with one hash.
    """
    return repr([int(item) if isinstance(item, (bool, float)) and item == item // 1 else item for item in key])


class Config(Record):
    """One ``triton.Config``: the constexprs it sets and the launch options."""

    kwargs: tuple[tuple[str, Scalar], ...]
    num_warps: Integer
    num_stages: Integer
    num_ctas: Integer = 1
    maxnreg: Integer | None = None

    @property
    def numbers(self) -> dict[str, int]:
        """The constexprs that are numbers; a few are words."""
        return {name: value for name, value in self.kwargs if isinstance(value, int)}

    def __str__(self) -> str:
        parts = [f"{name}={value}" for name, value in self.kwargs]
        parts += [f"num_warps={self.num_warps}", f"num_stages={self.num_stages}"]
        if self.num_ctas != 1:
            parts.append(f"num_ctas={self.num_ctas}")
        if self.maxnreg is not None:
            parts.append(f"maxnreg={self.maxnreg}")
        return " ".join(parts)


class SourceFile(Record, order=True):
    """One source file that something packed follows from."""

    path: str
    """Relative to the provider's site-packages, with forward slashes."""
    sha256: Digest


class Placement(Record):
    """A file of an engine's cache that holds where an engine with the same sources is installed."""

    kind: Literal["vllm-model-info"]
    """Whose it is and so where it is put: what vLLM found out about a model class, in ``modelinfos``."""
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*\.json(?![\s\S])", max_length=200)]
    sources: tuple[SourceFile, ...]
    """Every source file that it follows from."""


class Dependency(Record, order=True):
    """A function that a kernel calls, directly or not.

    Of Triton's own functions only those called by a bare name are listed: they are what a provider may bind otherwise,
    say to a faster ``exp``.
    """

    name: str
    """Name under which it is called."""
    module: str
    qualname: str
    source_sha256: NoDigest
    """Of its text as Triton read it; empty for a function of Triton itself."""


class Global(Record):
    """A global that a kernel reads, so that it is part of the kernel's meaning."""

    name: str
    value: str
    """Its ``repr``."""


class Relaxed(Record):
    """A constexpr of which one binary serves every value; bound to the kernel's source by its digest."""

    argument: str
    value: Integer | None
    """What binaries are compiled with: a launch key is looked up with this in place of the value it has, if the
    artifact does not have it as it is. None for binaries that take the value as a 32-bit argument."""
    reason: str
    place: Integer | None = None
    """Where it is in the kernel's autotune key, if it is: the choice of the nearest value serves every other."""

    @property
    def row(self) -> tuple[str, int | None, int | None]:
        """What is needed to look keys up; see `gdn_aot.triton_internals.relaxing`."""
        return self.argument, self.value, self.place


class Kernel(Record):
    """One JIT function of the provider and what its code depends on."""

    module: str
    qualname: str
    cache_key: Digest
    """Triton's ``JITFunction.cache_key``."""
    source_sha256: Digest
    """Of the function's text as Triton read it."""
    sources: tuple[SourceFile, ...]
    dependencies: tuple[Dependency, ...]
    globals: tuple[Global, ...]
    relaxations: tuple[Relaxed, ...] = ()

    @property
    def name(self) -> str:
        """``module:qualname``."""
        return f"{self.module}:{self.qualname}"

    @property
    def digest(self) -> str:
        """SHA-256 of what its code is made of: its text, those of the functions that it calls, the globals they read.

        `cache_key` is of that too, and of the first line. This says nothing of lines, files and modules, nor of
        Triton's own functions but their names, so that it is the same in every release that has the same kernel.
        """
        called = sorted({(one.name, one.source_sha256 or f"{one.module}:{one.qualname}") for one in self.dependencies})
        read = [(one.name, one.value) for one in self.globals]
        return hashlib.sha256(msgspec.json.encode((self.source_sha256, called, read))).hexdigest()


class Specialization(Record):
    """What Triton compiles a kernel for, as `gdn_aot.triton_internals.Launch.specialization` gives it."""

    signature: dict[str, Json]
    """Argument name to type: a string, or lists of them for tuple arguments."""
    constants: tuple[tuple[ArgumentPath, Json], ...]
    """Value of each constant argument: plain, ``{"constexpr": ...}``, ``{"dtype": "..."}`` or ``{"float": "-inf"}``."""
    attributes: tuple[tuple[ArgumentPath, tuple[tuple[str, Json], ...]], ...]
    """Attributes of each argument: pairs of name and value."""
    options: dict[str, Json]


SOUND_LOCAL = 192
"""Most local memory per thread, in bytes, with which a binary is sound.

The driver keeps local memory for every thread that a card can hold: 192 bytes are at most 56 MiB on every card of the
table of targets. 256 threads, of 255 registers each as many as an SM holds, then spill into 48 KB, which its L1 cache
holds. ``docs/explanation/spills.md`` has what was compiled.
"""


class Resources(Record):
    """What one compiled kernel takes, read from the cubin itself."""

    registers: Integer
    """32-bit registers per thread."""
    shared: Integer
    """Bytes of shared memory per block."""
    local: Integer
    """Bytes of local memory per thread."""


class CompiledKernel(Record):
    """What compiling one launch came to: where its cubin is, and what it takes."""

    cubin: Digest
    metadata: dict[str, Json]
    """Triton's own, without what belongs to the build machine."""
    registers: Integer
    """32-bit registers per thread."""
    local: Integer
    """Bytes of local memory per thread."""

    @property
    def shared(self) -> int:
        """Bytes of shared memory per block."""
        return _integer(self.metadata["shared"])

    @property
    def threads(self) -> int:
        """Threads per block."""
        return 32 * _integer(self.metadata["num_warps"])

    @property
    def resources(self) -> Resources:
        """What it takes."""
        return Resources(registers=self.registers, shared=self.shared, local=self.local)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of compiling one launch: exactly one of the three is set."""

    object: CompiledKernel | None = None
    rejected: str | None = None
    """The compiler refused the candidate for a reason for which Triton's autotuner drops it too."""
    failed: str | None = None
    """The compiler broke. Never cached."""


def field_problems(field: str, value: Any, where: str) -> Iterator[Problem]:
    """Yield what no schema says of a field of a `Specialization`, or of metadata, at a path of somebody else's file."""
    if fault := unbounded(value, MAX_ITEMS):
        yield Problem(where, fault)
    elif field == "signature":
        for name, found in value.items():
            if not _is_type(found):
                yield Problem(where + step(name), f"expected str or list of them, got {kind(found)}")
    elif field == "constants":
        for number, (_, constant) in enumerate(value):
            if type(constant) is dict and not _is_constant(constant):
                yield Problem(
                    f"{where}[{number}][1]", "expected a value, {constexpr: value}, {dtype: str} or {float: str}"
                )


def _is_type(value: Json) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(map(_is_type, value)))


def _is_constant(value: dict[str, Json]) -> bool:
    (name,) = value if len(value) == 1 else ("",)
    content = value.get(name)
    return (
        name == "constexpr"
        or (name == "dtype" and isinstance(content, str))
        or (name == "float" and content in _NO_JSON)
    )


def _integer(value: Json) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected an integer in Triton's metadata, got {value!r}")
    return value


def config_from_json(data: object) -> Config:
    """Read a `Config` that came through a pipe."""
    return msgspec.convert(data, Config)
