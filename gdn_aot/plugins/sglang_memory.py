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
_DELTA = ("local_num_heads", "head_dim", "conv_size")
"""Of a layer of Kimi Delta Attention, which has those above too: heads are divided already. The bound of its gate is
``attn.lower_bound``, which is not there in releases whose gates have none."""


def watch(module: str) -> None:
    """Have the class ``ModelRunner`` of a module load kernels first. Of an SGLang that has none, nothing is changed."""
    memory.watch(module, "ModelRunner", METHOD, load, ONLY_INTERRUPT)


def load(runner: Any) -> None:
    """Load the kernels that artifacts have for a runner's model onto its device; nothing for one that drafts."""
    if not getattr(runner, "is_draft_worker", False):
        memory.load(lambda: shape_of_runner(runner), "before the memory pools are measured", ONLY_INTERRUPT)


def shape_of_runner(runner: Any) -> dict[str, object] | None:
    """Return the shape of the layers that SGLang's runner serves, as rows of an artifact's models have it, or None.

    Of the runner ``model.modules()`` and ``model_config.dtype`` are read, of the first layer of a family its sizes.
    """
    from gdn_aot.catalogue.models import GDN, KDA

    for layer in runner.model.modules():
        gated, delta = _sizes(layer, _SIZES), _sizes(layer, _DELTA)
        if delta:
            heads, width, taps = delta
            sizes, family = (heads, heads, width, width, taps), KDA
        elif gated:
            *heads_of_model, k_dim, v_dim, parts = gated
            heads, v_heads = (count // parts for count in heads_of_model)
            sizes, family = (heads, v_heads, k_dim, v_dim, getattr(layer, "conv_kernel_size", None)), GDN
        else:
            continue
        named = dict(zip(("heads", "v_heads", "k_dim", "v_dim", "conv_width"), sizes, strict=True))
        return {
            **named,
            "dtype": memory.DTYPES.get(str(runner.model_config.dtype)),
            "family": family,
            "gate_bound": getattr(getattr(layer, "attn", None), "lower_bound", None) or 0.0,
        }
    return None


def _sizes(layer: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the sizes of a layer that has all of them, else none."""
    sizes = tuple(getattr(layer, name, None) for name in names)
    return sizes if all(type(size) is int and size > 0 for size in sizes) else ()
