"""What an artifact costs on a card: its code, and the local memory that the driver keeps for kernels that spill.

``docs/explanation/memory.md`` says why, and what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot._text import shown, suggest
from gdn_aot.catalogue.targets import all_targets, known_target
from gdn_aot.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.artifact.manifest import Binary, Manifest, PackedKernel
    from gdn_aot.catalogue.targets import Target

WARNED = 64 << 20
"""Bytes of local memory on one card over which there is a warning: 1/256 of the smallest card of
``catalogue/targets.toml``, which has 16 GiB."""
REFUSED = 256 << 20
"""Bytes of local memory on the card of the target over which nothing is packed: 1/64 of the smallest card."""
MIB = 1 << 20
_MOST_SMS = 4096
"""SMs of a card that is described by their number."""
_DIGITS = 9
"""Most digits of a number of SMs; Python refuses to read thousands of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spill:
    """The binary of one kernel that takes most local memory."""

    kernel: str
    """``module:qualname``."""
    config: str
    """What it was compiled with: the constexprs that configurations of the kernel set, warps and stages."""
    local: int
    """Bytes of local memory per thread."""

    def __str__(self) -> str:
        return f"{self.kernel} with {self.config}: {self.local} bytes of local memory per thread"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What loading and launching everything in an artifact takes, as far as it does not depend on the card."""

    code: int
    """Bytes of the distinct cubins."""
    spills: tuple[Spill, ...]
    """One for each kernel that uses local memory, the most first."""

    @property
    def local(self) -> int:
        """Bytes of local memory per thread, the most over the binaries."""
        return self.spills[0].local if self.spills else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Reserve:
    """The local memory that the driver keeps on one card."""

    card: str
    sm_count: int
    threads_per_sm: int
    bytes: int
    """``threads_per_sm`` x ``sm_count`` x the bytes per thread of the kernel that has most: the driver keeps one such
    area, not one for each kernel."""

    def __str__(self) -> str:
        return f"{self.bytes / MIB:.0f} MiB on {self.card} ({self.sm_count} SMs x {self.threads_per_sm} threads)"


def cost_of(manifest: Manifest) -> Cost:
    """Return what an artifact costs on any card."""
    sizes = {blob.sha256: blob.size for blob in manifest.blobs}
    cubins = {binary.cubin for kernel in manifest.kernels for binary in kernel.binaries}
    spills = (_spill(kernel) for kernel in manifest.kernels if kernel.binaries)
    return Cost(
        code=sum(sizes.get(digest, 0) for digest in cubins),
        spills=tuple(sorted((spill for spill in spills if spill.local), key=lambda spill: -spill.local)),
    )


def reserve_on(target: Target, local: int, *, card: str = "", sm_count: int = 0) -> Reserve:
    """Return what ``local`` bytes per thread come to on a card of a target, by default the one of the table."""
    count = sm_count or target.card.sm_count
    return Reserve(
        card=card or target.card.name,
        sm_count=count,
        threads_per_sm=target.threads_per_sm,
        bytes=target.local_reserve(local, count),
    )


def reserve_of(manifest: Manifest, local: int, card: str = "") -> Reserve | None:
    """Return what ``local`` bytes per thread of an artifact's kernel come to.

    Args:
        manifest: Of the artifact.
        local: Bytes per thread.
        card: Name of a card of ``gdn-aot targets``, or the number of SMs of a card of the artifact's target; the card
            of that target if empty.

    Returns:
        None if the target is not in the table, and no card of it is named.

    Raises:
        UsageError: There is no such card.
    """
    own = known_target(manifest.target.name)
    if not card:
        return reserve_on(own, local) if own else None
    if card.isdecimal() and card.isascii():
        if own is None or len(card) > _DIGITS or not 0 < int(card) <= _MOST_SMS:
            raise UsageError(f"no card of {manifest.target.name} with {shown(card)} SMs is known", hint="name a card")
        return reserve_on(own, local, card=f"a card of {own}", sm_count=int(card))
    known = {target.card.name: target for target in all_targets()}
    named = [target for name, target in known.items() if card.lower() in name.lower()]
    if len(named) != 1:
        what = f"{shown(card)!r} is the name of several cards" if named else f"unknown card {shown(card)!r}"
        hint = suggest(card, known, "say how many SMs the card has: --card 132")
        raise UsageError(f"{what}; known are {', '.join(known)}", hint=hint)
    return reserve_on(named[0], local)


def over(manifest: Manifest, most: int = REFUSED) -> Iterator[str]:
    """Yield for each kernel that takes more than ``most`` bytes on the card of the artifact's target what it takes."""
    for spill in cost_of(manifest).spills:
        reserve = reserve_of(manifest, spill.local)
        if reserve and reserve.bytes > most:
            yield f"{spill}, {reserve}"


def warning(reserve: Reserve) -> str:
    """Return what a person should know of a reserve; nothing if it is small."""
    if reserve.bytes <= WARNED:
        return ""
    taken = f"the first launch of that kernel takes {reserve.bytes / MIB:.0f} MiB of the card beside PyTorch's memory"
    return f"{taken}, and they stay taken (docs/explanation/memory.md)"


def _spill(kernel: PackedKernel) -> Spill:
    binary = max(kernel.binaries, key=lambda binary: (binary.resources.local, binary.launch_key))
    return Spill(kernel=kernel.name, config=_config(kernel, binary), local=binary.resources.local)


def _config(kernel: PackedKernel, binary: Binary) -> str:
    names = {name for choice in kernel.choices for name, _ in choice.config.kwargs}
    constants = dict(binary.specialization.constants)
    values = [(name, constants.get((place,))) for place, name in enumerate(binary.specialization.signature)]
    numbers = [(name, binary.metadata[name]) for name in ("num_warps", "num_stages")]
    return " ".join(f"{name}={value}" for name, value in (*(one for one in values if one[0] in names), *numbers))
