"""Provider ``fla``: flash-linear-attention's operators of GDN and KDA, its gated norm and its convolution.

`operators` says how the operators are called and by whom, `delta_rule` and `kda` have their workloads, `modules` those
of norm and convolution. Importing this module imports fla: do it under the stub driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gdn_aot.catalogue.models import KDA
from gdn_aot.providers.draw import EMPTY
from gdn_aot.providers.fla import kda
from gdn_aot.providers.fla.delta_rule import Prefill, Recurrent, SmallChunks
from gdn_aot.providers.fla.modules import GatedNorm, OlmoConv, ShortConv
from gdn_aot.providers.fla.operators import CHUNK_SIZES

if TYPE_CHECKING:
    from collections.abc import Callable

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.providers.workload import Workload

__all__ = ["EMPTY", "WORKLOADS", "lacks"]


def lacks(shape: ModelShape) -> str:
    """Return why this version of FLA has no calls for a model, or nothing."""
    unknown = shape.family == KDA and not kda.WORKLOADS
    return "the KDA of this version of FLA is not one that is known" if unknown else ""


ARGUMENTS = {"B": "the dense batch: kernels compute positions with it, and do so with an argument as well"}
"""Constexprs that kernels are to take as arguments; see `gdn_aot.tracing.relax`."""

WORKLOADS: dict[str, Callable[[], Workload]] = {
    "transformers-prefill": lambda: Prefill("transformers-prefill", layer=False),
    "transformers-decode": lambda: Recurrent("transformers-decode", layer=False),
    "layer-prefill": lambda: Prefill("layer-prefill", layer=True),
    "layer-recurrent": lambda: Recurrent("layer-recurrent", layer=True),
    **({"small-chunks": lambda: SmallChunks("small-chunks")} if CHUNK_SIZES[1:] else {}),
    "transformers-conv": lambda: OlmoConv("transformers-conv"),
    "gated-norm": lambda: GatedNorm("gated-norm"),
    "short-conv": lambda: ShortConv("short-conv"),
    "transformers-train": lambda: Prefill("transformers-train", layer=False, backward=True),
    "layer-train": lambda: Prefill("layer-train", layer=True, backward=True),
    "transformers-conv-train": lambda: OlmoConv("transformers-conv-train", backward=True),
    "gated-norm-train": lambda: GatedNorm("gated-norm-train", backward=True),
    "short-conv-train": lambda: ShortConv("short-conv-train", backward=True),
    **kda.WORKLOADS,
}
