"""A card that is not there, for the measuring process: outputs are constants, times follow from the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdn_aot.catalogue.targets import get_target
from gdn_aot.tracing import stub

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gdn_aot.store.index_records import BinaryRecord

_OUTPUTS = {
    "l2norm_fwd_kernel": ("y", "rstd"),
    "chunk_local_cumsum_scalar_kernel": ("o",),
    "chunk_gated_delta_rule_fwd_kkt_solve_kernel": ("A",),
    "recompute_w_u_fwd_kernel": ("w", "u"),
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64": ("h", "v_new", "ht"),
    "chunk_fwd_kernel_o": ("o",),
}
"""What each kernel of the call writes."""


class Card:
    """Such a card.

    Args:
        target: What the process pretends to have.
    """

    device = "cpu"

    def __init__(self, target: str) -> None:
        stub.activate(get_target(target))
        self._last = 1

    def describe(self) -> dict[str, Any]:
        """Return what the parent wants to know of a card."""
        return {"name": "none", "sm_count": 1, "memory": 1 << 30, "l2": 1 << 20}

    def load(self, jit: Any, record: BinaryRecord, code: bytes) -> Callable[..., None]:
        """Return a launch that fills the kernel's outputs."""
        del code
        written = _OUTPUTS[jit.fn.__name__]

        def launch(_grid: tuple[int, int, int], arguments: Mapping[str, Any]) -> None:
            self._last = 1 + 8 * abs(record.metadata["num_warps"] - 4) + record.metadata["num_stages"]
            for name in written:
                arguments[name].fill_(1)

        return launch

    def synchronize(self) -> None:
        """Return: nothing is ever under way."""

    def time(
        self, launches: Sequence[Callable[[], None]], before: Callable[[], None], rounds: int
    ) -> list[list[float]]:
        """Return times by the warps and stages of each."""
        times = []
        for launch in launches:
            before()
            launch()
            times.append([self._last * (1 + 0.001 * (number % 3)) for number in range(rounds)])
        return times
