"""Load the served model's kernels as soon as vLLM has a KV cache.

vLLM's ``Worker.compile_or_warm_up_model`` is the last step of a start: memory is measured and the KV cache made.
Kernels take a few MiB of what vLLM leaves free, as at their first launch, so that the KV cache is as large as without
gdn-aot (docs/explanation/performance.md), and CUDA graphs are captured with everything loaded.
"""

from __future__ import annotations

from typing import Any

from gdn_aot.plugins import memory

METHOD = "compile_or_warm_up_model"


def watch(module: str) -> None:
    """Have the worker class of a module load kernels first. Of a vLLM that has none, nothing is changed."""
    memory.watch(module, "Worker", METHOD, load)


def load(worker: Any) -> None:
    """Load the kernels that artifacts have for a worker's model onto its device."""
    memory.load(lambda: shape_of_worker(worker), "beside the KV cache")


def shape_of_worker(worker: Any) -> dict[str, object] | None:
    """Return the shape of the layers that vLLM's worker serves, as rows of an artifact's models have it, or None.

    Of the worker its ``model_config.hf_text_config``, ``model_config.dtype`` and
    ``parallel_config.tensor_parallel_size`` are read.
    """
    model, size = worker.model_config, int(worker.parallel_config.tensor_parallel_size)
    family, (heads, v_heads, k_dim, v_dim), conv_width, bound = _layers(model.hf_text_config)
    if not heads or not v_heads or not k_dim or not v_dim:
        return None
    return {
        "heads": heads // size,
        "v_heads": v_heads // size,
        "k_dim": k_dim,
        "v_dim": v_dim,
        "conv_width": conv_width,
        "dtype": memory.DTYPES.get(str(model.dtype)),
        "family": family,
        "gate_bound": bound or 0.0,
    }


def _layers(config: Any) -> tuple[str, list[Any], Any, Any]:
    """Return a model's family, both counts of heads and both dimensions, taps, and the gate's bound if it has one.

    Each is read as the layer of vLLM 0.33.0 reads it, with its defaults.
    """
    from gdn_aot.catalogue.models import GDN, KDA, LEAST_GATE_BOUND

    delta, bound = (getattr(config, name, None) for name in ("linear_attn_config", "linear_lower_bound"))
    if isinstance(delta, dict):  # Kimi-Linear, Kimi-K3; GLM-5.3-Flash if its file is written so
        heads, width, bound = delta.get("num_heads"), delta.get("head_dim"), delta.get("gate_lower_bound", bound)
        return KDA, [heads, heads, width, width], delta.get("short_conv_kernel_size"), bound
    if getattr(config, "no_kda_lora", False):  # Ling-3.0
        heads, width = getattr(config, "num_attention_heads", None), getattr(config, "head_dim", None)
        bound = getattr(config, "kda_lower_bound", LEAST_GATE_BOUND) if getattr(config, "kda_safe_gate", True) else None
        return KDA, [heads, heads, width, width], getattr(config, "short_conv_kernel_size", None), bound
    taps = getattr(config, "linear_conv_kernel_dim", None)
    if width := getattr(config, "linear_head_dim", None):  # GLM-5.3-Flash
        heads = getattr(config, "linear_num_heads", None)
        return KDA, [heads, heads, width, width], taps, bound
    family = KDA if hasattr(config, "kda_allow_negative_eigenvalues") else GDN  # AliceAI
    names = ("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim")
    return family, [getattr(config, name, None) for name in names], taps, None
