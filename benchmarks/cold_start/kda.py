"""FLA's Kimi Delta Attention, called as transformers calls it: Kimi-Linear-48B without tensor parallelism."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cold_start import fla as operators
from cold_start.shapes import K_DIM, KDA_HEADS

if TYPE_CHECKING:
    from collections.abc import Callable


def load() -> None:
    """Import what the calls need."""
    import fla.ops.kda  # noqa: F401


def host_inputs(call: str) -> dict[str, Any]:
    """Return the arguments of a call on the host, from a fixed seed: as `cold_start.fla.host_inputs`.

    Each channel of the keys has a gate of its own.
    """
    return operators.drawn(call, KDA_HEADS, KDA_HEADS, gates=(K_DIM,))


def prepare(inputs: dict[str, Any], device: str) -> Callable[[], tuple[Any, Any]]:
    """Copy inputs to the device, wait for it, and return the call as transformers makes it; it does not wait."""
    from fla.ops.kda import chunk_kda

    return operators.calling(chunk_kda, inputs, device)
