"""Load the served model's kernels before SGLang measures how much memory is left for its pools.

SGLang takes for the pools of the KV cache and of states what is free on the device, less a part that follows from
``--mem-fraction-static`` (``_profile_available_bytes``, in 0.5.11 to 0.5.23). Modules that are loaded before make the
pools smaller; those that are loaded after come out of the part that activations and CUDA graphs are to have. In all of
these releases ``ModelRunner.configure_kv_cache_dtype`` runs between, once, when the weights are loaded.
"""

from __future__ import annotations

from typing import Any

from gdn_aot.plugins import memory
from gdn_aot.plugins.engine import ONLY_INTERRUPT

METHOD = "configure_kv_cache_dtype"
_SIZES = ("num_k_heads", "num_v_heads", "head_k_dim", "head_v_dim", "attn_tp_size")
"""Of a GDN layer of SGLang: heads are those of the model, and divided by the last, which attention with data or context
parallelism makes another size than ``--tp``."""


def watch(module: str) -> None:
    """Have the class ``ModelRunner`` of a module load kernels first. Of an SGLang that has none, nothing is changed."""
    memory.watch(module, "ModelRunner", METHOD, load, ONLY_INTERRUPT)


def load(runner: Any) -> None:
    """Load the kernels that artifacts have for a runner's model onto its device; nothing for one that drafts."""
    if not getattr(runner, "is_draft_worker", False):
        memory.load(lambda: shape_of_runner(runner), "the memory pools are measured", ONLY_INTERRUPT)


def shape_of_runner(runner: Any) -> dict[str, object] | None:
    """Return the shape of the GDN layers that SGLang's runner serves, as rows of an artifact's models have it, or None.

    Of the runner ``model.modules()`` and ``model_config.dtype`` are read, of the first GDN layer its sizes.
    """
    from gdn_aot.catalogue.models import GDN

    for layer in runner.model.modules():
        sizes: list[Any] = [getattr(layer, name, None) for name in _SIZES]
        if all(type(size) is int and size > 0 for size in sizes):
            heads, v_heads, k_dim, v_dim, parts = sizes
            return {
                "heads": heads // parts,
                "v_heads": v_heads // parts,
                "k_dim": k_dim,
                "v_dim": v_dim,
                "conv_width": getattr(layer, "conv_kernel_size", None),
                "dtype": memory.DTYPES.get(str(runner.model_config.dtype)),
                "family": GDN,
            }
    return None
