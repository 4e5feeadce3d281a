"""An artifact in which most is wrong, as no check lets it into a store: what a fault of a build could make."""

from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from gdn_aot.artifact.manifest import Binary, Choice, Manifest, PackedKernel

DECODE = "fused_recurrent_gated_delta_rule_fwd_kernel"
NORM = "l2norm_fwd_kernel"
OUT = "chunk_fwd_kernel_o"
STATE = "chunk_gated_delta_rule_fwd_kernel_h_blockdim64"


@dataclass(frozen=True)
class Said:
    """What is said of a fault, once."""

    kernel: str
    what: str


SAID = (
    Said(DECODE, "its code takes other parameters than its signature says"),
    Said(NORM, "its binary cannot be launched: RuntimeError: its signature has i64 for x, and the launch *"),
    Said(OUT, "are not used: num_warps is 3, expected a power of two"),
    Said(STATE, "its choice cannot be launched: "),
)


def spoil(manifest: Manifest) -> Manifest:
    """Give one kernel another's code, one another signature, one choices that cannot be, and one that do not run."""
    code = next(kernel for kernel in manifest.kernels if kernel.qualname == NORM).binaries[0].cubin

    def other_code(binary: Binary) -> Binary:
        return replace(binary, cubin=code)

    def integer(binary: Binary) -> Binary:
        made = binary.specialization
        return replace(binary, specialization=replace(made, signature={**made.signature, "x": "i64"}))

    def three_warps(choice: Choice) -> Choice:
        return replace(choice, config=replace(choice.config, num_warps=3))

    def odd(choice: Choice) -> Choice:
        kwargs = tuple((name, 48 if name == "BV" else value) for name, value in choice.config.kwargs)
        return replace(choice, config=replace(choice.config, kwargs=kwargs))

    def spoiled(kernel: PackedKernel) -> PackedKernel:
        change: Any = {DECODE: other_code, NORM: integer, OUT: three_warps, STATE: odd}.get(kernel.qualname)
        if change is None:
            return kernel
        if change in (other_code, integer):
            return replace(kernel, binaries=tuple(map(change, kernel.binaries)))
        return replace(kernel, choices=tuple(map(change, kernel.choices)))

    return replace(manifest, kernels=tuple(map(spoiled, manifest.kernels)))
