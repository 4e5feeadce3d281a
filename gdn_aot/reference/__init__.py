"""Numbers: what kernels compute, in float64, and how far they may be from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import torch

Tensors: TypeAlias = "dict[str, torch.Tensor | None]"
"""Inputs or outputs of a call, by name. ``cu_seqlens``, if it is there, holds the ends of packed sequences."""

GRADIENT = "d."
"""What the name of a gradient begins with: ``d.out`` goes into a backward pass, ``d.q`` comes out of it."""
