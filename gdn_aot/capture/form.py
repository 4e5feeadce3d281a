"""What a capture is: the Triton kernels that a deployment launched, and how; reading and writing its file.

There is no tensor, address or path in it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from gdn_aot.capture.recorder import FORMAT
from gdn_aot.codec import Digest, Form, Integer, Record
from gdn_aot.errors import Problem, UsageError
from gdn_aot.launches import Config, Key, Specialization, field_problems

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAX_BYTES = 256 << 20
"""Bytes of a capture."""
AGAIN = "record again: gdn-aot capture -o FILE -- CMD"
"""What to do about a file that is no capture."""
_Name = Annotated[str, Meta(min_length=1)]


class Package(Record):
    """A provider's distribution that kernels came from."""

    distribution: str
    version: str | None
    """None where the package was found without its metadata."""


class CapturedTuning(Record):
    """The autotune key that a launch belongs to, and how the autotuner was called."""

    key: Key | None
    """None where the autotuner had one configuration only, and so no key."""
    config: Config
    """What it chose, or was given."""
    positional: Integer
    """Arguments given by position."""
    keywords: tuple[str, ...]
    """The others in the caller's order, on which the order of dtypes in the key depends."""


class CapturedLaunch(Record):
    """One launch key on one architecture."""

    target: str
    """``sm_90``; other backends of Triton as ``hip gfx942``."""
    key: str
    """The launch key."""
    specialization: Specialization
    tuning: CapturedTuning | None
    """None for a kernel that is not autotuned."""
    processes: Integer
    """How many processes had this launch with this tuning."""


class CapturedKernel(Record):
    """One JIT function and its launches."""

    module: _Name
    qualname: _Name
    source_sha256: Digest | None
    """Of its text as Triton read it; None where there is none."""
    cache_key: Digest | None
    """Triton's hash of the text, of what it calls and of the globals that they read."""
    launches: tuple[CapturedLaunch, ...]

    @property
    def name(self) -> str:
        """``module:qualname``."""
        return f"{self.module}:{self.qualname}"


class LeftOut(Record):
    """A kernel, or a process, that could not be recorded."""

    what: str
    reason: str


class Capture(Record):
    """One capture file."""

    format: Integer
    tool: str
    triton: str
    """Version of Triton in the processes recorded."""
    processes: Integer
    """Processes that launched a Triton kernel."""
    packages: tuple[Package, ...]
    kernels: tuple[CapturedKernel, ...]
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
        plain = msgspec.to_builtins(self.kernels)
        for kernel in plain:
            for launch in kernel["launches"]:
                del launch["processes"]
        return hashlib.sha256(msgspec.json.encode(plain)).hexdigest()


def load(path: Path) -> Capture:
    """Read a capture file.

    Raises:
        UsageError: It cannot be read.
        UnknownFormatError: It is of another format version.
        VerificationError: It is no capture; every problem is named.
    """
    try:
        return FORM.read(path, name=str(path))
    except OSError as error:
        raise UsageError(
            f"cannot read the capture {path}: {error.strerror}", hint="gdn-aot capture -o FILE -- CMD"
        ) from error


def _check(capture: Capture) -> Iterator[Problem]:
    """Yield what is inconsistent: arguments that are not there, kernels that are there twice."""
    seen: set[tuple[str, str | None]] = set()
    for number, kernel in enumerate(capture.kernels):
        where = f"kernels[{number}]"
        if (kernel.name, kernel.cache_key) in seen:
            yield Problem(where, "occurs twice")
        seen.add((kernel.name, kernel.cache_key))
        for inner, launch in enumerate(kernel.launches):
            yield from _check_launch(launch, f"{where}.launches[{inner}]")


def _check_launch(launch: CapturedLaunch, where: str) -> Iterator[Problem]:
    count = len(launch.specialization.signature)
    for name in Specialization.__struct_fields__:
        yield from field_problems(name, getattr(launch.specialization, name), f"{where}.specialization.{name}")
    for name in ("constants", "attributes"):
        for number, (path, _) in enumerate(getattr(launch.specialization, name)):
            if not path or not 0 <= path[0] < count:
                what = f"expected an argument from 0, below {count}"
                yield Problem(f"{where}.specialization.{name}[{number}][0]", what)
    if launch.tuning is not None and not 0 <= launch.tuning.positional <= count:
        yield Problem(f"{where}.tuning.positional", f"expected 0 to {count}")


FORM = Form(
    Capture,
    "the capture",
    format=FORMAT,
    limit=_MAX_BYTES,
    layout=lambda compact: msgspec.json.format(compact, indent=1) + b"\n",
    check=_check,
    hint=AGAIN,
)
