"""What a capture is: the Triton kernels that a deployment launched, and how.

The JSON keys of each object are the fields of its record, in order; ``resources/capture.schema.json`` says the same as
a schema. There is no tensor, address or path in it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gdn_aot.capture.recorder import FORMAT

if TYPE_CHECKING:
    from gdn_aot.artifact import manifest as m

__all__ = ["FORMAT", "Capture", "Kernel", "Launch", "LeftOut", "Package", "Tuning"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A provider's distribution that kernels came from."""

    distribution: str
    version: str | None
    """None where the package was found without its metadata."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """The autotune key that a launch belongs to, and how the autotuner was called."""

    key: m.Key | None
    """None where the autotuner had one configuration only, and so no key."""
    config: m.Config
    """What it chose, or was given."""
    positional: int
    """Arguments given by position."""
    keywords: tuple[str, ...]
    """The others in the caller's order, on which the order of dtypes in the key depends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """One launch key on one architecture."""

    target: str
    """``sm_90``; other backends of Triton as ``hip gfx942``."""
    key: str
    """The launch key."""
    specialization: m.Specialization
    tuning: Tuning | None
    """None for a kernel that is not autotuned."""
    processes: int
    """How many processes had this launch with this tuning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """One JIT function and its launches."""

    module: str
    qualname: str
    source_sha256: str | None
    """Of its text as Triton read it; None where there is none."""
    cache_key: str | None
    """Triton's hash of the text, of what it calls and of the globals that they read."""
    launches: tuple[Launch, ...]

    @property
    def name(self) -> str:
        """``module:qualname``."""
        return f"{self.module}:{self.qualname}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A kernel, or a process, that could not be recorded."""

    what: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    """One capture file."""

    format: int
    tool: str
    triton: str
    """Version of Triton in the processes recorded."""
    processes: int
    """Processes that launched a Triton kernel."""
    packages: tuple[Package, ...]
    kernels: tuple[Kernel, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def launches(self) -> int:
        """Number of launches, all kernels together."""
        return sum(len(kernel.launches) for kernel in self.kernels)

    @property
    def targets(self) -> tuple[str, ...]:
        """The architectures that launches were recorded on, sorted."""
        return tuple(sorted({launch.target for kernel in self.kernels for launch in kernel.launches}))

    def digest(self) -> str:
        """Return a SHA-256 of what is built from it: the kernels and launches, not how many processes had them."""
        plain = json.loads(dump(self))["kernels"]
        for kernel in plain:
            for launch in kernel["launches"]:
                del launch["processes"]
        return hashlib.sha256(json.dumps(plain, separators=(",", ":")).encode()).hexdigest()


def dump(capture: Capture) -> bytes:
    """Return the bytes of a capture file: ASCII, in a form that can be read and compared."""
    return json.dumps(asdict(capture), indent=1, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"
