"""The two calls that are measured: shapes, inputs, and a digest of the result.

Imports torch and fla inside functions only: when they are imported is part of what is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HEADS, V_HEADS, K_DIM, V_DIM = 16, 32, 128, 128
"""Qwen3.5-9B without tensor parallelism."""

PACKS = {"dense": None, "varlen": (1000, 2000, 1096), "small": None}
"""Lengths of the packed prompts of each call; None for one prompt."""

TOKENS = {"dense": 4096, "varlen": 4096, "small": 64}
"""``small`` is bound by launching; only the steady-state measurement uses it."""


def host_inputs(call: str) -> dict[str, Any]:
    """Return the arguments of a call on the host, from a fixed seed.

    They are made on the host and copied, so that no kernel of PyTorch runs on the device before the measured call.
    The gate is that of a model: log-sigmoid, a few percent of decay per token.
    """
    import torch
    from torch.nn.functional import logsigmoid

    tokens = TOKENS[call]
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(1, tokens, *shape, generator=generator)

    inputs = {
        "q": normal(HEADS, K_DIM).bfloat16(),
        "k": normal(HEADS, K_DIM).bfloat16(),
        "v": normal(V_HEADS, V_DIM).bfloat16(),
        "g": logsigmoid(normal(V_HEADS) + 3),
        "beta": normal(V_HEADS).sigmoid().bfloat16(),
    }
    if lengths := PACKS[call]:
        inputs["cu_seqlens"] = torch.tensor([sum(lengths[:count]) for count in range(len(lengths) + 1)])
    return inputs


def prepare(inputs: dict[str, Any], device: str) -> Callable[[], tuple[Any, Any]]:
    """Copy inputs to the device, wait for it, and return the call as transformers makes it; it does not wait."""
    import torch
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    there = {name: tensor.to(device) for name, tensor in inputs.items()}
    ends = there.pop("cu_seqlens", None)
    torch.cuda.synchronize()

    def call() -> tuple[Any, Any]:
        # As in a server, each call has a tensor of ends of its own: FLA keeps what it derives from the last ones.
        own = None if ends is None else ends.clone()
        with torch.inference_mode():
            return chunk_gated_delta_rule(
                **there, cu_seqlens=own, initial_state=None, output_final_state=True, use_qk_l2norm_in_kernel=True
            )

    return call


def digest(result: Sequence[Any]) -> dict[str, Any]:
    """Return the SHA-256 of the bytes of an output and its final state, and their norms."""
    import ctypes
    import hashlib

    found: dict[str, Any] = {}
    for name, tensor in zip(("output", "state"), result, strict=True):
        host = tensor.cpu().contiguous()
        data = ctypes.string_at(host.data_ptr(), host.numel() * host.element_size())
        found[name] = {"sha256": hashlib.sha256(data).hexdigest(), "norm": float(host.double().norm())}
    return found
