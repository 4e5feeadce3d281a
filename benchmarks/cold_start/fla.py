"""FLA's gated delta rule, called as transformers calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cold_start.shapes import HEADS, K_DIM, PACKS, TOKENS, V_DIM, V_HEADS

if TYPE_CHECKING:
    from collections.abc import Callable


def load() -> None:
    """Import what the calls need."""
    import fla.ops.gated_delta_rule  # noqa: F401


def host_inputs(call: str) -> dict[str, Any]:
    """Return the arguments of a call on the host, from a fixed seed.

    They are made on the host and copied, so that no kernel of PyTorch runs on the device before the measured call.
    The gate is that of a model: log-sigmoid, a few percent of decay per token.
    """
    return drawn(call, HEADS, V_HEADS)


def drawn(call: str, heads: int, v_heads: int, gates: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return the arguments of a call with so many heads, and gates of this size for each value head."""
    import torch
    from torch.nn.functional import logsigmoid

    tokens = TOKENS[call]
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(1, tokens, *shape, generator=generator)

    inputs = {
        "q": normal(heads, K_DIM).bfloat16(),
        "k": normal(heads, K_DIM).bfloat16(),
        "v": normal(v_heads, V_DIM).bfloat16(),
        "g": logsigmoid(normal(v_heads, *gates) + 3),
        "beta": normal(v_heads).sigmoid().bfloat16(),
    }
    if lengths := PACKS[call]:
        inputs["cu_seqlens"] = torch.tensor([sum(lengths[:count]) for count in range(len(lengths) + 1)])
    return inputs


def prepare(inputs: dict[str, Any], device: str) -> Callable[[], tuple[Any, Any]]:
    """Copy inputs to the device, wait for it, and return the call as transformers makes it; it does not wait."""
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    return calling(chunk_gated_delta_rule, inputs, device)


def calling(operator: Callable[..., Any], inputs: dict[str, Any], device: str) -> Callable[[], tuple[Any, Any]]:
    """Do what `prepare` does, for one of the operators of chunks."""
    import torch

    there = {name: tensor.to(device) for name, tensor in inputs.items()}
    ends = there.pop("cu_seqlens", None)
    torch.cuda.synchronize()

    def call() -> tuple[Any, Any]:
        # As in a server, each call has a tensor of ends of its own: FLA keeps what it derives from the last ones.
        own = None if ends is None else ends.clone()
        with torch.inference_mode():
            made: tuple[Any, Any] = operator(
                **there, cu_seqlens=own, initial_state=None, output_final_state=True, use_qk_l2norm_in_kernel=True
            )
            return made

    return call
