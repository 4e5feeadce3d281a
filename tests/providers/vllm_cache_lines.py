"""Runs vLLM's convolutions with several values of ``num_cache_lines``; a program of its own.

In Triton's interpreter, or on the device if the argument is ``cuda``. Pages are one number apart where there are
billions of them: only the last is used, and on a CPU only memory that is touched is there. In the interpreter the grid
is one block: the wrapper's own is no use to it.
"""

import json
import sys
import types
from typing import Any

DEVICE = sys.argv[1] if sys.argv[1:] else "cpu"
if DEVICE == "cpu":
    from gdn_aot.catalogue.targets import get_target
    from gdn_aot.providers.vllm.platform import prepare
    from gdn_aot.tracing import stub

    stub.activate(get_target("sm_90"))
    prepare()

import torch  # noqa: E402
from vllm.model_executor.layers.mamba.ops import causal_conv1d as conv  # noqa: E402

from gdn_aot.providers.vllm.relaxations import LINES  # noqa: E402

WIDTH, TAPS, MANY = 16, 4, 100_000
KERNELS = {name: getattr(conv, name) for name in ("_causal_conv1d_fwd_kernel", "_causal_conv1d_update_kernel")}
torch.set_default_device(DEVICE)
ZERO = torch.zeros(1, dtype=torch.int32)
METADATA = (
    None if DEVICE == "cuda" else types.SimpleNamespace(nums_dict={}, batch_ptr=ZERO, token_chunk_offset_ptr=ZERO)
)


class Launcher:
    """Launches a kernel with this number of cache lines."""

    def __init__(self, kernel: Any, pages: int, lines: int) -> None:
        self.kernel, self.pages, self.lines = kernel, pages, lines
        self.place = kernel.arg_names.index("num_cache_lines")

    def __getitem__(self, grid: Any) -> Any:
        def launch(*args: Any, **kwargs: Any) -> None:
            assert args[self.place] == self.pages
            self.kernel[grid if DEVICE == "cuda" else (1, 1)](
                *args[: self.place], self.lines, *args[self.place + 1 :], **kwargs
            )

        return launch


def run(kind: str, pages: int, length: int, lines: int) -> torch.Tensor:
    """Return what a convolution gives and leaves in the last page."""
    step = WIDTH * TAPS if pages < MANY else 1
    last = (pages - 1) * step
    torch.manual_seed(1)
    whole = torch.empty(last + WIDTH * TAPS)
    whole[last:] = torch.randn(WIDTH * TAPS)
    state = whole.as_strided((pages, WIDTH, TAPS), (step, 1, WIDTH))
    weight, x = torch.randn(WIDTH, TAPS), torch.randn(length, WIDTH)
    page = torch.tensor([pages - 1], dtype=torch.int32)
    for name, kernel in KERNELS.items():
        setattr(conv, name, Launcher(kernel, pages, lines))
    ends = torch.tensor([0, length], dtype=torch.int32)
    if kind == "forward":
        out = conv.causal_conv1d_fn(
            x.T,
            weight,
            None,
            state[:, :, :3],
            ends,
            cache_indices=page,
            has_initial_state=torch.tensor([True]),
            activation="silu",
            metadata=METADATA,
        ).T
    elif kind == "update":
        out = conv.causal_conv1d_update(x, state[:, :, :3], weight, None, "silu", conv_state_indices=page)
    else:
        out = conv.causal_conv1d_update(
            x,
            state,
            weight,
            None,
            "silu",
            conv_state_indices=page,
            num_accepted_tokens=torch.tensor([1], dtype=torch.int32),
            query_start_loc=ends,
            max_query_len=2,
        )
    return torch.cat([out.flatten(), whole[last:]])


rows = []
for kind, length in (("forward", 1), ("forward", 2), ("forward", 5), ("update", 1), ("drafts", 1), ("drafts", 2)):
    for pages in (2, 36310, LINES - 1):
        own = run(kind, pages, length, pages)
        rows.append(
            {
                "kind": kind,
                "pages": pages,
                "shifts": length < TAPS - 1,
                "same": torch.equal(own, run(kind, pages, length, LINES)),
                "same with 1": torch.equal(own, run(kind, pages, length, 1)),
                "finite": bool(torch.isfinite(own).all()),
            }
        )
print(json.dumps(rows))
