"""A card that stands in for a target that is not here: which code it runs, and that code assembled for it.

A newer card runs the PTX of an older target. So a target's own PTX, which holds its instructions, its tiles and its
pipeline, can be timed there; the assembler of the card turns it into machine code, as the driver would. A target that
is newer than the card has no PTX that the card takes: then the code is that of an older target whose ``tl.dot`` becomes
the same instruction.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gdn_aot.artifact import elf
from gdn_aot.catalogue.targets import all_targets, assembler
from gdn_aot.compiling.cache import digest
from gdn_aot.errors import UsageError

if TYPE_CHECKING:
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.compiling.cache import BuildCache
    from gdn_aot.launches import CompiledKernel

_SECONDS = 300
"""That assembling one kernel may take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proxy:
    """What stands in for a target."""

    target: Target
    """Whose candidates, identity and limits."""
    code: Target
    """Whose PTX: the target itself, or an older one with the same kind of ``tl.dot``."""
    card: Target
    """Of the card that runs it."""

    @property
    def how(self) -> str:
        """As messages say it."""
        code = "its own PTX" if self.code == self.target else f"the PTX of {self.code}"
        return f"{code}, assembled for {self.card}"

    def assembled(self, cache: BuildCache, sha256: str) -> CompiledKernel | None:
        """Return what `assemble` stored for a cubin of the code's target, or None."""
        return cache.object(self._key(sha256))

    def assemble(self, cache: BuildCache, made: CompiledKernel) -> CompiledKernel:
        """Assemble the PTX that a cubin was made from, which the cache has, for the card, and store what comes out.

        Raises:
            VerificationError: The PTX is not in the cache.
            ValueError: The assembler refuses it.
            NotWritableError: The cache cannot be written.
        """
        found = self.assembled(cache, made.cubin)
        if found is None:
            cubin = _assemble(cache.ptx(made.cubin), self.card)
            info = elf.describe(cubin)
            found = cache.put_object(self._key(made.cubin), cubin, made.metadata, info.registers, info.local)
        return found

    def _key(self, sha256: str) -> str:
        tool = assembler(self.card)
        return digest("assembled", sha256, self.card.assembler_arch, tool and tool[1])


def proxy_for(target: Target, card: Target) -> Proxy:
    """Return how a card of one target stands in for another.

    Raises:
        UsageError: It cannot: there is no code for it that has to do with the target's.
    """
    if target == card:
        raise UsageError(f"the card is {card} itself: nothing has to stand in for it", hint="leave --proxy out")
    older = [other for other in all_targets() if other.capability < card.capability and other.runs_on_newer]
    if target in older:
        return Proxy(target=target, code=target, card=card)
    alike = [other for other in older if other.dot == target.dot]
    if not alike:
        raise UsageError(
            f"no card of {card} can stand in for {target}: it does not run the PTX of {target}, and no older target "
            f"has {target.dot} for tl.dot",
            hint="choices of such a target are transferred; tune on a card of it",
        )
    return Proxy(target=target, code=alike[-1], card=card)


def _assemble(ptx: str, target: Target) -> bytes:
    """Assemble PTX as Triton does without line information.

    Raises:
        ValueError: The assembler refuses it, or there is none.
    """
    tool = assembler(target)
    if tool is None:
        raise ValueError(f"no ptxas for {target} was found with the installed Triton")
    with tempfile.TemporaryDirectory(prefix="assemble-") as folder:
        source, made = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx, encoding="utf-8")
        options = ["-lineinfo", "-suppress-debug-info", f"--gpu-name={target.assembler_arch}"]
        done = subprocess.run(
            [tool[0], *options, str(source), "-o", str(made)],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise ValueError(f"ptxas refused it for {target}: {said[0] if said else done.returncode}")
        return made.read_bytes()
