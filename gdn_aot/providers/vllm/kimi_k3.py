"""What vLLM's layer of Kimi-K3 has of its own: one projection of everything, and two side by side in CUDA graphs.

The strides of what the projection's row holds are constants of kernels. From TP 8 and few tokens on, a captured graph
has two projections run beside each other, whose rows are shorter.

Importing this module imports vLLM: call `gdn_aot.providers.vllm.platform.prepare` before.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from gdn_aot.providers.layer_names import K3

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gdn_aot.catalogue.models import ModelShape

QKVG = 4
"""Parts of a row that are as wide as the heads: queries, keys, values and the gate of the norm."""
_ALIGNED = 16
"""Numbers of which a row is a multiple, as the constructor of the layer pads it."""
_MODULE = "vllm.models.kimi_k3.nvidia.low_latency_gemm"


def row(shape: ModelShape) -> tuple[int, ...]:
    """Return the columns of a row: queries to the norm's gate, the rank of the raw gate, beta, and nothing."""
    parts = (QKVG * shape.heads * shape.k_dim, shape.k_dim, shape.heads)
    return (*parts, -sum(parts) % _ALIGNED)


def overlaps(shape: ModelShape, tokens: int) -> bool:
    """Say whether a captured graph of so many tokens has both projections, on this card."""
    if shape.layer != K3 or shape.dtype != "bf16":
        return False
    gemm = importlib.import_module(_MODULE)
    weights = {(sum(row(shape)), shape.hidden), (shape.heads * shape.k_dim, shape.k_dim)}
    few: int = getattr(gemm, "KDA_PROJECTION_OVERLAP_MAX_TOKENS", 0)
    return tokens <= few and shape.tp == gemm._KDA_TP_SIZE and weights <= {*(gemm._low_latency_table() or ())}  # noqa: SLF001


def gate_rows(shape: ModelShape, tokens: int) -> tuple[int, ...]:
    """Return from which numbers to the next the norm's gate has a token, in each way that a layer projects it."""
    width = shape.heads * shape.v_dim
    if shape.layer != K3:
        return (width,)
    return (sum(row(shape)), *((QKVG * width,) if overlaps(shape, tokens) else ()))


@contextlib.contextmanager
def captured(layer: Any, parts: Sequence[torch.Tensor], decay: torch.Tensor) -> Iterator[None]:
    """Have a layer take the way of a captured graph; ``parts`` are those of `row`, ``decay`` the raw gates."""
    qkvg, rank, b, padded = parts
    beside = torch.cat([rank, b] if len(b) == 1 else [rank, b, padded], -1)
    beta = beside[:, rank.shape[1] : rank.shape[1] + b.shape[1]]
    layer._projection_events = layer._projection_aux_stream = ()  # noqa: SLF001
    layer._projection_overlap_max_tokens = len(b)  # noqa: SLF001
    layer.in_proj_qkvgfab = layer.f_b_proj = mock.Mock()
    with (
        mock.patch.object(torch.cuda, "is_current_stream_capturing", return_value=True),
        mock.patch(f"{_MODULE}.run_kda_projection_overlap", return_value=(qkvg.clone(), decay, beta)),
    ):
        yield
