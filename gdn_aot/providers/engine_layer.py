"""What engines' layers have in common, in float64 where it computes. Imports no engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gdn_aot.catalogue.models import KDA
from gdn_aot.providers.layer_names import INTERLEAVED
from gdn_aot.providers.workload import there
from gdn_aot.reference import formulas as reference

if TYPE_CHECKING:
    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.reference import Tensors


def conv_dim(shape: ModelShape) -> int:
    """Return the channels of the convolution: queries, keys and values."""
    return 2 * shape.heads * shape.k_dim + shape.v_heads * shape.v_dim


def split(shape: ModelShape, inputs: Tensors) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what the projections hold.

    Inputs of the convolution ``[tokens, width]``, the gate of the norm ``[tokens, v_heads, v_dim]``, and the raw gates
    ``b`` and ``a``, both ``[tokens, v_heads]``. Of Kimi Delta Attention the last is ``[tokens, heads, k_dim]``, and the
    gate has no numbers where a layer is run without its norm.
    """
    if shape.family == KDA:
        x, b, decay = (there(inputs, name)[0] for name in ("projected", "b", "decay"))
        gate = there(inputs, "gate")[0] if "gate" in inputs else x[:, :0]
        return x, gate.unflatten(-1, (shape.v_heads, -1)), b, decay.unflatten(-1, (shape.heads, -1))
    projected, ba = there(inputs, "projected")[0], there(inputs, "ba")[0]
    if shape.layer != INTERLEAVED:
        width, heads = conv_dim(shape), shape.v_heads
        return projected[:, :width], projected[:, width:].unflatten(-1, (heads, -1)), ba[:, :heads], ba[:, heads:]
    group = shape.v_heads // shape.heads
    sizes = [shape.k_dim, shape.k_dim, group * shape.v_dim, group * shape.v_dim]
    q, k, v, z = projected.unflatten(-1, (shape.heads, -1)).split(sizes, -1)
    b, a = ba.unflatten(-1, (shape.heads, -1)).split([group, group], -1)
    mixed = torch.cat([part.flatten(1) for part in (q, k, v)], -1)
    return mixed, z.flatten(1).unflatten(-1, (shape.v_heads, -1)), b.flatten(1), a.flatten(1)


def convolution(inputs: Tensors, x: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Return the convolution of ``[tokens, width]`` after ``[taps - 1, width]``, rounded as the layer does."""
    whole = torch.cat([torch.zeros_like(before[:1]), before]).mT[None]
    out, _ = reference.short_convolution(x[None], there(inputs, "weight"), whole, None)
    return out[0].to(x.dtype)


def heads(shape: ModelShape, mixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return normalized queries and keys in float64, and values, each ``[1, tokens, heads, dimension]``."""
    keys = shape.heads * shape.k_dim
    q, k, v = mixed.split([keys, keys, shape.v_heads * shape.v_dim], -1)
    q, k = (reference.normalized(part.unflatten(-1, (-1, shape.k_dim)))[None] for part in (q, k))
    return q, k, v.unflatten(-1, (-1, shape.v_dim))[None]
