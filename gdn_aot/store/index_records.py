"""The records of an index; see `gdn_aot.store.index`."""

from __future__ import annotations

from typing import Any, NamedTuple

SPECIALIZATION = ("signature", "constants", "attributes", "options")
"""The fields of a specialization, in the order of their numbers in a binary's record."""


class PlacedRecord(NamedTuple):
    """A file of an engine's cache; see `gdn_aot.serving.placing`."""

    kind: str
    name: str
    sources: list[tuple[str, str]]
    """(path relative to the provider's site-packages, SHA-256) of each file that it follows from."""
    blob: str
    """SHA-256 of what it holds."""


class CacheRecord(NamedTuple):
    """The compile cache of an engine; see `gdn_aot.artifact.manifest.CompileCache`."""

    torch: str
    python: str
    card: str
    environment: list[tuple[str, str]]
    files: list[tuple[str, list[str]]]
    """(path, SHA-256 of each piece of what it holds) of each file."""


class KernelRecord(NamedTuple):
    """What is needed to recognize a kernel in a process that imported its module."""

    module: str
    qualname: str
    source_sha256: str
    """Of the function's text as Triton read it."""
    sources: list[tuple[str, str]]
    """(path relative to the provider's site-packages, SHA-256) of each file that its text is in."""
    dependencies: list[tuple[str, str, str, str]]
    """(name it is called by, module, qualname, SHA-256 of its text) of each function that it calls."""
    globals: list[tuple[str, str]]
    """(name, repr) of each global that it reads."""
    relaxations: list[tuple[str, int | None, int | None]]
    """(constexpr, value that stands for all of its values or None for an argument, place in the autotune key or
    None)."""

    @property
    def name(self) -> str:
        """``module:qualname``."""
        return f"{self.module}:{self.qualname}"


class ConfigRecord(NamedTuple):
    """One ``triton.Config``."""

    kwargs: dict[str, Any]
    num_warps: int
    num_stages: int
    num_ctas: int
    maxnreg: int | None


class ChoiceRecord(NamedTuple):
    """The configuration for one autotune key."""

    key: tuple[Any, ...]
    config: ConfigRecord
    provenance: str


class BinaryRecord(NamedTuple):
    """One compiled kernel, without its code."""

    launch_key: str
    cubin: str
    """SHA-256 of the code."""
    metadata: dict[str, Any]
    """Triton's, without what belongs to the machine that compiled."""
    specialization: dict[str, Any]
    """Signature, constants, attributes and options, in JSON form."""
