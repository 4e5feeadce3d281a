"""Calls of FLA with inputs as a model makes them, and a watch on what Triton does meanwhile.

For the processes in `gpu.programs`. Importing this module imports torch and Triton but neither fla nor gdn_aot.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import logsigmoid, softplus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gdn_aot.catalogue.models import ModelShape

DEVICE = "cuda"

Tensors = dict[str, torch.Tensor]


def finish(main: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Run a program: options are JSON in the first argument, the result is the last line of stdout."""
    result = main(json.loads(sys.argv[1]))
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    sys.stdout.flush()


def is_fatal(error: Exception) -> bool:
    """Say whether nothing works on the device after this error."""
    return "CUDA error" in str(error) or "illegal memory" in str(error)


class Watch:
    """Notes what must not happen: compiles (from Triton's disk cache too), benchmarks and warnings of the loader.

    To be made before any call, and after `gdn_aot.install`.
    """

    def __init__(self) -> None:
        from triton import knobs
        from triton.runtime.autotuner import Autotuner

        self.compiled: list[tuple[str, str]] = []
        """(module, name) of each kernel that Triton compiled or took from its disk cache."""
        self.benchmarked: list[str] = []
        """Kernel of each configuration that was measured."""
        knobs.compilation.listener = self._listen
        bench = Autotuner._bench

        def counted(tuner: Any, *args: Any, **kwargs: Any) -> Any:
            self.benchmarked.append(tuner.base_fn.__name__)
            return bench(tuner, *args, **kwargs)

        Autotuner._bench = counted
        self.warnings: list[str] = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.warnings.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("gdn_aot").addHandler(handler)

    def _listen(self, *, src: Any, **_: Any) -> None:
        self.compiled.append((getattr(getattr(src, "fn", None), "module", ""), src.name))

    @property
    def of_fla(self) -> list[str]:
        """Names of the kernels of FLA among those compiled."""
        return [name for module, name in self.compiled if module.split(".")[0] == "fla"]

    def to_dict(self) -> dict[str, Any]:
        cache = os.walk(os.environ.get("TRITON_CACHE_DIR", "/nonexistent"))
        files = Counter(name for _, _, names in cache for name in names)
        return {
            "compiled": [f"{module}:{name}" for module, name in self.compiled],
            "of_fla": self.of_fla,
            "benchmarked": len(self.benchmarked),
            "cache_files": dict(sorted(files.items())),
            "warnings": self.warnings,
        }


def watched(options: dict[str, Any]) -> Watch:
    """Install the artifact, unless it is not to be served; return a watch on what Triton does from then on."""
    if options.get("served", True):
        import gdn_aot

        gdn_aot.install(options["artifact"], strict=True)
    return Watch()


MODEL = "qwen3.5-9b"


def model_shape(tp: int = 1) -> ModelShape:
    """Return the shape under test: 16 key heads and 32 value heads of 128, divided by ``tp``."""
    from gdn_aot.catalogue.models import find_model

    return find_model(MODEL).shape(tp)


def generator(seed: int, device: str = "") -> torch.Generator:
    """Return a generator on the device: the same numbers in every process on one kind of card."""
    made = torch.Generator(device or DEVICE)
    made.manual_seed(seed)
    return made


def gate_parameters(heads: int, source: torch.Generator | None = None, device: str = "") -> Tensors:
    """Return ``A_log`` and ``dt_bias`` as FLA's layer draws them: A in 1 to 16, time steps from 0.001 to 0.1."""
    draws = torch.rand(2, heads, generator=source, device=device or DEVICE)
    step = torch.exp(math.log(0.001) + draws[1] * math.log(0.1 / 0.001))
    return {"A_log": torch.log(1 + 15 * draws[0]), "dt_bias": step + torch.log(-torch.expm1(-step))}


def decays(raw: torch.Tensor, parameters: Tensors) -> torch.Tensor:
    """Return the logarithm of the decay that a raw gate stands for, in the precision of ``raw``."""
    a_log, dt_bias = (parameters[name].to(raw.dtype) for name in ("A_log", "dt_bias"))
    return -a_log.exp() * softplus(raw + dt_bias)


def operator_inputs(shape: ModelShape, batch: int, tokens: int, seed: int, device: str = "") -> Tensors:
    """Return q, k, v, g and beta as the model code of transformers passes them: bf16, and g in float32."""
    source, place = generator(seed, device), device or DEVICE

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(batch, tokens, *size, generator=source, device=place)

    parameters = gate_parameters(shape.v_heads, source, device)
    return {
        "q": draw(shape.heads, shape.k_dim).bfloat16(),
        "k": draw(shape.heads, shape.k_dim).bfloat16(),
        "v": draw(shape.v_heads, shape.v_dim).bfloat16(),
        "g": decays(draw(shape.v_heads), parameters),
        "beta": logsigmoid(draw(shape.v_heads)).exp().bfloat16(),
    }


def states(shape: ModelShape, sequences: int, seed: int, device: str = "") -> torch.Tensor:
    """Return random states."""
    size = (sequences, shape.v_heads, shape.k_dim, shape.v_dim)
    return torch.randn(*size, generator=generator(seed, device), device=device or DEVICE)


def prefill(inputs: Tensors, initial: torch.Tensor | None = None, lengths: Sequence[int] | None = None) -> Tensors:
    """Call the chunked operator; the last states are always asked for."""
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    ends = None if lengths is None else [0, *itertools.accumulate(lengths)]
    with torch.no_grad():
        out, last = chunk_gated_delta_rule(
            **inputs,
            initial_state=initial,
            output_final_state=True,
            use_qk_l2norm_in_kernel=True,
            cu_seqlens=None if ends is None else torch.tensor(ends, dtype=torch.int64, device=inputs["q"].device),
        )
    return {"out": out, "state": last}


def decode(inputs: Tensors, initial: torch.Tensor) -> Tensors:
    """Call the recurrent operator."""
    from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule

    with torch.no_grad():
        out, last = fused_recurrent_gated_delta_rule(
            **inputs, initial_state=initial, output_final_state=True, use_qk_l2norm_in_kernel=True
        )
    return {"out": out, "state": last}


def gated_norm(shape: ModelShape, tokens: int, seed: int, device: str = "") -> Tensors:
    """Call the gated norm of the layer."""
    from fla.modules import FusedRMSNormGated

    source, place = generator(seed, device), device or DEVICE
    size = (1, tokens, shape.v_heads, shape.v_dim)
    x, gate = (torch.randn(size, generator=source, device=place).bfloat16() for _ in range(2))
    norm = FusedRMSNormGated(
        shape.v_dim, eps=shape.norm_eps, activation=shape.norm_activation, device=place, dtype=torch.bfloat16
    )
    with torch.no_grad():
        norm.weight.normal_(1.0, 0.1, generator=source)
        return {"out": norm(x, gate)}


PACK = (17, 200, 64, 19)
"""Lengths of the packed sequences in `sample_calls`; 300 tokens together."""


def sample_calls(tp: int = 1, device: str = "") -> Tensors:
    """Make a dense and a packed prefill, a decode step and a norm; return all results by name."""
    shape = model_shape(tp)
    results = {
        "dense": prefill(operator_inputs(shape, 1, 300, 1, device)),
        "varlen": prefill(operator_inputs(shape, 1, 300, 2, device), states(shape, len(PACK), 3, device), PACK),
        "decode": decode(operator_inputs(shape, 3, 1, 4, device), states(shape, 3, 5, device)),
        "norm": gated_norm(shape, 300, 6, device),
    }
    return {f"{call}.{name}": value for call, found in results.items() for name, value in found.items()}


def digest(value: torch.Tensor) -> str:
    """Return a hash of a tensor's bits."""
    data = value.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(data).hexdigest()[:32]


def digests(results: Tensors) -> dict[str, str]:
    return {name: digest(value) for name, value in results.items()}


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference over the norm of what is expected."""
    expected = expected.double()
    return float((found.double() - expected).norm() / expected.norm())


def report() -> dict[str, Any]:
    """Return the loader's report as plain data."""
    import gdn_aot

    return dict(gdn_aot.report().to_dict())


def synchronize() -> None:
    torch.cuda.synchronize()
