"""Leave candidates out by what their compiled kernels take, before any is timed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gdn_aot.choosing.choose import misfit
from gdn_aot.choosing.occupancy import blocks_per_sm

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gdn_aot.catalogue.targets import Target
    from gdn_aot.launches import CompiledKernel, Config


def prune(objects: Mapping[Config, CompiledKernel], target: Target, offered: Collection[Config]) -> dict[Config, str]:
    """Return the candidates not worth timing and why, in one sentence.

    The provider's own are left out only if they do not fit or are the same binary as one before them: what else is
    wrong with them is for the measurement to say. Others must not spill more than the one of these that spills least.

    ``objects`` has the compiled kernel of each candidate for one launch, of equal ones the first is kept; ``offered``
    are the provider's own.
    """
    left_out: dict[Config, str] = {}
    first: dict[tuple[object, ...], Config] = {}
    own = [objects[config] for config in offered if config in objects]
    allowed = min((one.local for one in own if _unfit(one, target) is None), default=None)
    for config, compiled in objects.items():
        reason = _unfit(compiled, target)
        if reason is None and config not in offered and allowed is not None and compiled.local > allowed:
            reason = f"spills: {compiled.local} bytes of local memory per thread, the provider's {allowed}"
        if reason is None:
            # The same binary with other keywords may be launched on another grid.
            same = (config.kwargs, config.num_ctas, compiled.cubin, compiled.shared, compiled.threads)
            twin = first.setdefault(same, config)
            reason = None if twin is config else f"compiles to the same binary as {twin}"
        if reason is not None:
            left_out[config] = reason
    return left_out


def _unfit(compiled: CompiledKernel, target: Target) -> str | None:
    reason = misfit(compiled, target)
    if reason is None and blocks_per_sm(compiled, target) < 1:
        reason = f"not one block of it fits on an SM of {target}"
    return reason
