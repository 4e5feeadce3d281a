"""What an artifact says about itself: the manifest as frozen records, and its JSON form.

The JSON keys of each object are the fields of its record, in order; ``resources/manifest.schema.json`` says the
same as a schema. Free JSON (Triton's metadata, options and constants) holds tuples instead of lists, as `freeze`
makes it, so that what is read compares equal to what was written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Literal, TypeAlias, cast

FORMAT = 1
"""The format version written, and the only one read."""

Scalar: TypeAlias = bool | int | float | str | None
Json: TypeAlias = "Scalar | Sequence[Json] | Mapping[str, Json]"
Key: TypeAlias = tuple[Scalar, ...]
"""An autotune key."""
ArgumentPath: TypeAlias = tuple[int, ...]
"""Position of an argument, with further indices into tuple arguments."""
Provenance: TypeAlias = Literal["measured", "captured", "transferred", "default"]
Mode: TypeAlias = Literal["inference", "train"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The GPU architecture that the binaries are for."""

    name: str
    """``sm_<major><minor>``."""
    capability: tuple[int, int]
    warp_size: int
    """Threads."""
    max_shared: int
    """Opt-in shared memory per block, in bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LicenseFile:
    """One licence text of the provider's distribution, kept as a blob."""

    path: str
    """Name in the distribution."""
    blob: str
    """SHA-256 of the text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provider:
    """The installed package whose kernels these are. Compiled kernels are derived works of it."""

    name: str
    distribution: str
    version: str
    license: str
    """SPDX expression."""
    license_files: tuple[LicenseFile, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Triton:
    """The compiler."""

    version: str
    ptxas: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """One shape that was traced. Heads are counted after division by ``tp``."""

    name: str
    tp: int
    heads: int
    v_heads: int
    k_dim: int
    v_dim: int
    conv_width: int
    dtype: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One source file whose text is in a kernel."""

    path: str
    """Relative to the provider's site-packages, with forward slashes."""
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Dependency:
    """Another function that a kernel calls."""

    module: str
    qualname: str
    name: str
    """Name under which the kernel refers to it."""
    source_sha256: str
    """Of its text as Triton read it; empty for a function of Triton itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Global:
    """A global that a kernel reads, so that it is part of the kernel's meaning."""

    name: str
    value: str
    """Its ``repr``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """One ``triton.Config``."""

    kwargs: Mapping[str, Scalar]
    num_warps: int
    num_stages: int
    num_ctas: int
    maxnreg: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The configuration shipped for one autotune key."""

    key: Key
    config: Config
    provenance: Provenance
    derived: bool
    """The configuration is not one of the provider's own candidates."""
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Specialization:
    """What Triton compiles a kernel for."""

    signature: Mapping[str, Json]
    """Argument name to type: a string, or tuples of them for tuple arguments."""
    constants: tuple[tuple[ArgumentPath, Json], ...]
    """Value of each constant argument: plain, ``{"constexpr": ...}``, ``{"dtype": "..."}`` or ``{"float": "-inf"}``."""
    attributes: tuple[tuple[ArgumentPath, Json], ...]
    """Attributes of each argument: pairs of name and value."""
    options: Mapping[str, Json]


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What one binary takes, read from the binary itself."""

    registers: int
    """Per thread."""
    shared: int
    """Bytes per block."""
    local: int
    """Bytes per thread."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Binary:
    """One compiled kernel."""

    launch_key: str
    specialization: Specialization
    metadata: Mapping[str, Json]
    """Triton's own, without what belongs to the build machine."""
    resources: Resources
    models: tuple[int, ...]
    """Indices of the `Manifest.models` whose calls launch it, sorted. Empty if it is known from a capture alone."""
    workloads: tuple[int, ...]
    """Indices of the `Manifest.workloads` whose calls launch it, sorted."""
    cubin: str
    """SHA-256 of the blob."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Relaxation:
    """A constexpr of which the kernel's binaries serve every value; bound to the kernel's source by its digest."""

    argument: str
    value: int
    """What the binaries were compiled with: a launch key is looked up with this in place of the value it has."""
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """One JIT function of the provider."""

    module: str
    qualname: str
    cache_key: str
    """Triton's ``JITFunction.cache_key``."""
    source_sha256: str
    """Of the function's text as Triton read it."""
    sources: tuple[Source, ...]
    dependencies: tuple[Dependency, ...]
    globals: tuple[Global, ...]
    choices: tuple[Choice, ...]
    binaries: tuple[Binary, ...]
    relaxations: tuple[Relaxation, ...] = ()
    """Not in the JSON if there are none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NotCovered:
    """A kernel, or some autotune keys of it, that the artifact lacks."""

    kernel: str
    """``module:qualname``."""
    reason: str
    keys: tuple[Key, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Numerics:
    """Whether results were compared with a reference on a GPU."""

    status: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """One file under ``blobs/``."""

    sha256: str
    size: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """What made the artifact."""

    tool: str
    commit: str | None
    dirty: bool
    epoch: int
    """Modification time of every member, in seconds since 1970: ``SOURCE_DATE_EPOCH`` or 0."""
    zstd: str
    """Version of the zstd library; other versions may compress to other bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """``manifest.json``."""

    format: int
    identifier: str
    target: Target
    provider: Provider
    triton: Triton
    models: tuple[Model, ...]
    workloads: tuple[str, ...]
    mode: Mode
    max_tokens: int
    max_batch: int
    kernels: tuple[Kernel, ...]
    not_covered: tuple[NotCovered, ...]
    numerics: Numerics
    blobs: tuple[Blob, ...] = ()
    """Every blob file, sorted by digest. Filled in by ``archive.write_artifact``."""
    build: Build


def to_json(manifest: Manifest) -> bytes:
    """Return the bytes of ``manifest.json``: ASCII, one line, keys in the order of the fields.

    Raises:
        TypeError: Free JSON in the manifest holds something that JSON cannot carry.
        ValueError: A number is not finite.
    """
    text = json.dumps(to_plain(manifest), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def to_plain(manifest: Manifest) -> dict[str, Json]:
    """Return the manifest in a form that ``json.dumps`` takes. Free JSON is not copied."""
    return cast("dict[str, Json]", _plain(manifest))


def freeze(value: object) -> Json:
    """Return free JSON in the form that the manifest holds it in: tuples for lists, dicts kept.

    Raises:
        TypeError: The value is not JSON.
        ValueError: A number is not finite.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a JSON number")
        return value
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item) for item in value)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: freeze(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} is not JSON")


def _plain(value: object) -> object:
    if isinstance(value, (str, int, float)) or value is None:
        return value
    if is_dataclass(value):
        plain = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        if isinstance(value, Kernel) and not value.relaxations:
            del plain["relaxations"]
        return plain
    if isinstance(value, Mapping):
        return dict(value)  # free JSON: json.dumps takes its tuples as they are
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} is not JSON")
