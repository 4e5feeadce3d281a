"""SGLang's own layer of Kimi Delta Attention, as `cold_start.sglang` calls that of Gated Delta Net: Kimi-Linear-48B."""

from __future__ import annotations

from typing import Any

from cold_start import sglang
from cold_start.sglang import load, prepare
from cold_start.shapes import KDA_MODEL

__all__ = ["host_inputs", "load", "prepare"]


def host_inputs(call: str) -> dict[str, Any]:
    """Return the results of a layer's projections and its parameters on the host, from a fixed seed."""
    return sglang.host_inputs(call, KDA_MODEL)
