"""Load the served model's kernels before vLLM measures how much memory is left for the KV cache.

vLLM's ``Worker.determine_available_memory`` runs once, after the weights are loaded, and counts all memory that is in
use on the device since its process started, whoever took it. Modules that are loaded before it are therefore counted;
those that a later launch loads are not, and on a full card there is no room for them.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from gdn_aot._text import shown
from gdn_aot.serving import log

METHOD = "determine_available_memory"
ENDS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What is not held back: it is to end more than what raised it."""
_MARK = "_gdn_aot_preloads"
_DTYPES = {"torch.bfloat16": "bf16", "torch.float16": "fp16"}


def watch(module: str) -> None:
    """Have the worker class of a module load kernels first. Of a vLLM that has none, nothing is changed."""
    try:
        worker: Any = getattr(sys.modules.get(module), "Worker", None)
        original = vars(worker).get(METHOD) if isinstance(worker, type) else None
        if hasattr(original, _MARK):
            return
        if not callable(original):
            log.notice(f"{module} has no {METHOD} that is known; kernels are loaded when they are first launched")
            return
        setattr(worker, METHOD, _loading_first(original))
    except ENDS:
        raise
    except BaseException as error:  # noqa: BLE001 - vLLM's import goes on
        log.warn(
            f"vLLM's worker cannot be watched: {type(error).__name__}: {shown(error)}; the first launches load kernels"
        )


def _loading_first(original: Any) -> Any:
    @functools.wraps(original)
    def determine_available_memory(worker: Any, *args: Any, **kwargs: Any) -> Any:
        load(worker)
        return original(worker, *args, **kwargs)

    setattr(determine_available_memory, _MARK, True)
    return determine_available_memory


def load(worker: Any) -> None:
    """Load the kernels that artifacts have for a worker's model onto its device. Raises nothing."""
    try:
        from gdn_aot.serving import loader
        from gdn_aot.serving.advice import cover_shape
        from gdn_aot.serving.preload import load_shape

        shape = shape_of_worker(worker)
        loaded = load_shape(shape)
        if not loaded.artifacts:
            return  # the loader said why
        told = (
            f"loaded {loaded.modules} modules of {loaded.kernels} kernels from {shown(', '.join(loaded.artifacts))}, "
        )
        told += f"{loaded.bytes / (1 << 20):.1f} MiB, before the KV cache is measured"
        if loaded.models or loaded.captured or not shape:
            log.notice(told)
        else:
            served = ", ".join(f"{name} {value}" for name, value in shape.items() if value is not None)
            covered = cover_shape(loader.state().found[0].header, shape)
            log.warn(f"no artifact has the served model's shape ({served}); {told}. {covered}")
    except ENDS:
        raise
    except BaseException as error:  # noqa: BLE001 - vLLM's start goes on
        log.warn(f"preload: {type(error).__name__}: {shown(error)}; the first launches load kernels")
        log.detail(error)


def shape_of_worker(worker: Any) -> dict[str, object] | None:
    """Return the shape of the GDN layers that vLLM's worker serves, as rows of an artifact's models have it, or None.

    Of the worker its ``model_config.hf_text_config``, ``model_config.dtype`` and
    ``parallel_config.tensor_parallel_size`` are read.
    """
    model, size = worker.model_config, int(worker.parallel_config.tensor_parallel_size)
    config = model.hf_text_config
    names = ("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim")
    heads, v_heads, k_dim, v_dim = (getattr(config, name, None) for name in names)
    if not heads or not v_heads or not k_dim or not v_dim:
        return None
    return {
        "heads": heads // size,
        "v_heads": v_heads // size,
        "k_dim": k_dim,
        "v_dim": v_dim,
        "conv_width": getattr(config, "linear_conv_kernel_dim", None),
        "dtype": _DTYPES.get(str(model.dtype)),
    }
