"""What an artifact says about itself: the manifest as frozen records.

`gdn_aot.artifact.manifest_json` writes and reads it. In the file, what many binaries share is there once: see
`ManifestFile`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gdn_aot import launches
from gdn_aot.artifact import cached, names
from gdn_aot.artifact.names import MAX_BLOB, MAX_IDENTIFIER
from gdn_aot.catalogue.models import GDN, Family
from gdn_aot.codec import Commit, Digest, Integer, Record, TargetName
from gdn_aot.deployment import Built
from gdn_aot.launches import ArgumentPath, Config, Json, Key, Resources, Specialization

FORMAT = names.FORMAT
"""The format version written, and the only one read."""
MAX_EPOCH = 0o77777777777
"""Seconds; the largest time that a tar header holds."""

Provenance = Literal["measured", "proxy", "captured", "transferred", "default"]
Mode = Literal["inference", "train"]
Indices = tuple[Integer, ...]
_Short = Annotated[str, Meta(max_length=200)]
_Path = Annotated[str, Meta(max_length=4096)]


class GPU(Record):
    """The GPU architecture that the binaries are for."""

    name: TargetName
    """``sm_<major><minor>``."""
    capability: tuple[Integer, Integer]
    warp_size: Integer
    """Threads."""
    max_shared: Integer
    """Opt-in shared memory per block, in bytes."""


class LicenseFile(Record):
    """One licence text of the provider's distribution, kept as a blob."""

    path: str
    """Name in the distribution."""
    blob: Digest
    """SHA-256 of the text."""


class Provider(Record):
    """The installed package whose kernels these are. Compiled kernels are derived works of it."""

    name: str
    distribution: str
    version: str
    license: str
    """SPDX expression."""
    license_files: tuple[LicenseFile, ...]


class Triton(Record):
    """The compiler."""

    version: str
    ptxas: str


class TracedShape(Record, omit_defaults=True):
    """One shape that was traced. Heads are counted after division by ``tp``."""

    name: str
    tp: Integer
    heads: Integer
    v_heads: Integer
    k_dim: Integer
    v_dim: Integer
    conv_width: Integer
    dtype: str
    family: Family = GDN
    """Of the layers: ``gdn``, whose rows have no such key, or ``kda``."""
    gate_bound: float | None = None
    """Least logarithm of a token's decay; rows of models whose gate has no bound have no such key."""


class Choice(Record):
    """The configuration shipped for one autotune key."""

    key: Key
    config: Config
    provenance: Provenance
    derived: bool
    """The configuration is not one of the provider's own candidates."""
    note: str


class Binary(Record):
    """One compiled kernel, and the launch key that it is for."""

    launch_key: str
    specialization: Specialization
    metadata: dict[str, Json]
    """Triton's own, without what belongs to the build machine."""
    resources: Resources
    models: Indices
    """Indices of the `Manifest.models` whose calls launch it, sorted. Empty if it is known from a capture alone."""
    workloads: Indices
    """Indices of the `Manifest.workloads` whose calls launch it, sorted."""
    cubin: Digest
    """SHA-256 of the blob."""


class PackedKernel(launches.Kernel, kw_only=True):
    """One JIT function of the provider, with what the artifact has for it."""

    choices: tuple[Choice, ...]
    binaries: tuple[Binary, ...]


class PlacedFile(launches.Placement):
    """A file of an engine's cache, put in place when a process of that engine starts."""

    blob: Digest
    """SHA-256 of what it holds."""


class CachedFile(Record):
    """One file of an engine's compile cache."""

    path: Annotated[str, Meta(pattern=cached.PATTERN, max_length=cached.MAX_PATH)]
    """Relative to the cache, with forward slashes."""
    blobs: tuple[Digest, ...]
    """What it holds, in pieces of `cached.PIECE` bytes; the last has the rest. An empty file has none."""


class CompileCache(Record):
    """What an engine compiled on the machine of a recording, and runs on its host: Python code and pickles.

    The engine's own key decides whether it uses it. The fields before `files` are what of that key is known ahead, each
    empty where it is not.
    """

    kind: Literal["vllm-compile-cache"]
    """Whose it is and so where it is put: vLLM's, in ``torch_compile_cache``."""
    torch: _Short
    """Version of PyTorch."""
    python: _Short
    """Version of Python."""
    card: _Short
    """Product name of the GPU."""
    environment: tuple[tuple[Annotated[str, Meta(pattern=r"^VLLM_[A-Z0-9_]+(?![\s\S])", max_length=100)], _Path], ...]
    """Variables of the engine that hold paths of that machine, by name: some follow ``HOME``."""
    files: tuple[CachedFile, ...]
    """Sorted by path."""

    @property
    def origin(self) -> str:
        """The machine that made it, as far as it is known."""
        made = (("PyTorch ", self.torch), ("Python ", self.python), ("", self.card))
        return ", ".join(what + value for what, value in made if value) or "a machine that it does not name"


class NotCovered(Record):
    """A kernel, or some autotune keys of it, that the artifact lacks."""

    kernel: str
    """``module:qualname``."""
    reason: str
    keys: tuple[Key, ...]


class Numerics(Record):
    """Whether results were compared with a reference on a GPU."""

    status: str
    detail: str


class Blob(Record):
    """One file under ``blobs/``."""

    sha256: Digest
    size: Annotated[int, Meta(ge=0, le=MAX_BLOB)]
    """Bytes."""


class Build(Record):
    """What made the artifact."""

    tool: str
    commit: Commit | None
    dirty: bool
    epoch: Annotated[int, Meta(ge=0, le=MAX_EPOCH)]
    """Modification time of every member, in seconds since 1970: ``SOURCE_DATE_EPOCH`` or 0."""
    zstd: str
    """Version of the zstd library; other versions may compress to other bytes."""


class ManifestHead(Record, omit_defaults=True):
    """All of a manifest but the kernels that the artifact has."""

    format: Integer
    identifier: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]*(?![\s\S])", max_length=MAX_IDENTIFIER)]
    """Of an artifact's directory and file, so without characters that a file name must not have."""
    target: GPU
    provider: Provider
    triton: Triton
    models: tuple[TracedShape, ...]
    workloads: tuple[str, ...]
    mode: Mode
    max_tokens: Integer
    max_batch: Integer
    not_covered: tuple[NotCovered, ...]
    numerics: Numerics
    build: Build
    blobs: tuple[Blob, ...]
    """Every blob file, in the order in which they are first referred to. Filled in by ``archive.write_artifact``."""
    deployment: Built | None = None
    """The one deployment that it was built for; most are for every one, and their file has no such key."""
    compile_cache: CompileCache | None = None
    """What the engine compiled for that deployment; the key is there only if it was packed."""

    @property
    def cached_blobs(self) -> tuple[str, ...]:
        """The digest of every piece of the compile cache, file by file."""
        return tuple(blob for file in (self.compile_cache.files if self.compile_cache else ()) for blob in file.blobs)


class Manifest(ManifestHead, kw_only=True):
    """What an artifact says about itself."""

    kernels: tuple[PackedKernel, ...]
    placed: tuple[PlacedFile, ...] = ()
    """Sorted by name."""


class BinaryRow(Record, array_like=True):
    """One binary in the file: a list of its launch key and of numbers. All but the last are places in `Parts`."""

    launch_key: str
    signature: Integer
    constants: Integer
    attributes: Integer
    options: Integer
    metadata: Integer
    resources: Integer
    models: Integer
    workloads: Integer
    blob: Integer
    """Place of the cubin in `ManifestHead.blobs`."""


class FileKernel(launches.Kernel, kw_only=True):
    """One kernel in the file."""

    choices: tuple[Choice, ...]
    binaries: tuple[BinaryRow, ...]


class Parts(Record):
    """What binaries are made of, each piece once, in the order in which the binaries come to it."""

    signature: tuple[dict[str, Json], ...]
    constants: tuple[tuple[tuple[ArgumentPath, Json], ...], ...]
    attributes: tuple[tuple[tuple[ArgumentPath, tuple[tuple[str, Json], ...]], ...], ...]
    options: tuple[dict[str, Json], ...]
    metadata: tuple[dict[str, Json], ...]
    resources: tuple[Resources, ...]
    models: tuple[Indices, ...]
    workloads: tuple[Indices, ...]


class ManifestFile(ManifestHead, kw_only=True):
    """``manifest.json``: a manifest whose binaries name by number what they share."""

    parts: Parts
    kernels: tuple[FileKernel, ...]
    placed: tuple[PlacedFile, ...] = ()
    """The key is there only if there are any, so that manifests are read that were written before there was one."""
