"""The words of every stage: what a configuration, a kernel and a compiled kernel are."""

from __future__ import annotations

from dataclasses import dataclass

Scalar = None | bool | int | float | str
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class Config:
    """One ``triton.Config``: the constexprs it sets and the launch options."""

    kwargs: tuple[tuple[str, Scalar], ...]
    num_warps: int
    num_stages: int
    num_ctas: int = 1
    maxnreg: int | None = None

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


@dataclass(frozen=True, slots=True)
class Kernel:
    """One JIT function of the provider and what its code depends on."""

    module: str
    qualname: str
    cache_key: str
    source_sha256: str
    """Of the function's text as Triton read it."""
    sources: tuple[tuple[str, str], ...]
    """(path relative to the provider's site-packages, sha256) of every file whose text is in the kernel."""
    dependencies: tuple[tuple[str, str, str, str], ...]
    """(name in the kernel, module, qualname, SHA-256 of its text) of the functions it calls, directly or not.

    Of Triton's own functions only those called by a bare name are here, without a digest: they are what a provider
    may bind otherwise, say to a faster ``exp``.
    """
    globals: tuple[tuple[str, str], ...]
    """(name, repr) of the globals it reads."""
    relaxations: tuple[tuple[str, int, str], ...] = ()
    """(constexpr, value it is compiled with, reason) where one binary serves every value."""

    @property
    def name(self) -> str:
        """``module:qualname``."""
        return f"{self.module}:{self.qualname}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Object:
    """One compiled kernel: where its cubin is, and what it takes."""

    cubin: str
    """SHA-256 of the cubin."""
    metadata: dict[str, Json]
    registers: int
    """32-bit registers per thread."""
    local: int
    """Bytes of local memory per thread."""

    @property
    def shared(self) -> int:
        """Bytes of shared memory per block."""
        return _integer(self.metadata["shared"])

    @property
    def threads(self) -> int:
        """Threads per block."""
        return 32 * _integer(self.metadata["num_warps"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of compiling one launch: exactly one of the three is set."""

    object: Object | None = None
    rejected: str | None = None
    """The compiler refused the candidate for a reason for which Triton's autotuner drops it too."""
    failed: str | None = None
    """The compiler broke. Never cached."""


def _integer(value: Json) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected an integer in Triton's metadata, got {value!r}")
    return value


def config_from_json(data: dict[str, object]) -> Config:
    """Read a `Config` written by ``dataclasses.asdict``."""
    pairs = data["kwargs"]
    assert isinstance(pairs, list)  # noqa: S101
    return Config(**{**data, "kwargs": tuple(tuple(pair) for pair in pairs)})  # type: ignore[arg-type]
