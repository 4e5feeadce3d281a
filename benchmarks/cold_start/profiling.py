"""Where the time of a first call with the loader goes. In a process of its own: timing every part costs time too."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cold_start.probes import Spans
    from cold_start.worker import Channel, Process


def profile(process: Process, channel: Channel) -> dict[str, Any]:
    """Return milliseconds of each part, without those of the parts inside it; ``rest`` is FLA's own Python."""
    import torch

    from cold_start import calls

    name = process.spec["call"]
    inputs = calls.host_inputs(name)
    _warm_operators()
    channel.wait(**process.times)
    call = calls.prepare(inputs, process.device)
    spans = process.spans
    _wrap_triton(spans)
    _wrap_provider(spans)
    spans.clear()
    with _operators(spans):
        start = time.perf_counter()
        call()
        spans.run("waiting for the device", torch.cuda.synchronize)
        total = 1000 * (time.perf_counter() - start)
    parts = {part: round(taken, 4) for part, taken in sorted(spans.self_ms.items(), key=lambda item: -item[1])}
    return {"total_ms": total, "parts_ms": parts, "counts": spans.count, "rest_ms": total - sum(parts.values())}


def wrap_loader() -> Spans:
    """Time the loader's parts. Before the provider is imported: what is seeded then holds on to some of them."""
    from cold_start.probes import Spans
    from gdn_aot.serving.kernels import Kernel
    from gdn_aot.store.index import Index
    from gdn_aot.store.stored import StoredArtifact
    from gdn_aot.triton_internals import launching

    spans = Spans()
    spans.wrap(Index, "binary", "loader: index, binaries")
    spans.wrap(Index, "choices", "loader: index, choices")
    spans.wrap(StoredArtifact, "read_blob", "loader: read and hash cubins")
    spans.wrap(launching, "load_binary", "loader: cuModuleLoadData")
    spans.wrap(Kernel, "_on_device", "loader: prepare a kernel for the device")
    spans.wrap(Kernel, "_find", "loader: find a binary")
    spans.wrap(Kernel, "_choose", "loader: find a choice")
    make_kernel = launching.make_kernel

    def make(*args: Any, **kwargs: Any) -> Any:
        kernel = spans.run("loader: make a kernel object", make_kernel, *args, **kwargs)
        run = kernel.run
        kernel.run = lambda *values: spans.run("launches", run, *values)
        return kernel

    launching.make_kernel = make
    return spans


def _wrap_triton(spans: Spans) -> None:
    from triton.runtime.autotuner import Autotuner, Heuristics
    from triton.runtime.jit import JITFunction

    spans.wrap(JITFunction, "create_binder", "Triton: make binders")
    spans.wrap(JITFunction, "run", "Triton: JITFunction.run")
    for owner in (Autotuner, Heuristics):
        spans.wrap(owner, "run", f"Triton: {owner.__name__}.run")


def _wrap_provider(spans: Spans) -> None:
    """Wrap what prepares the indices of packed prompts, in each module that imported it by name."""
    from fla.ops.utils import index

    for name in ("prepare_chunk_indices", "prepare_chunk_offsets"):
        original = getattr(index, name)
        spans.wrap(index, name, f"FLA: {name}")
        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "").startswith("fla.") and module.__dict__.get(name) is original:
                setattr(module, name, getattr(index, name))


def _warm_operators() -> None:
    """Have PyTorch import what its dispatch mode needs, by calls on the host: it is no part of the measured call."""
    import torch
    from fla.ops.utils import index

    from cold_start.probes import Spans

    ends = torch.tensor([0, 70, 128])
    with torch.inference_mode(), _operators(Spans()):
        index.prepare_chunk_indices(ends, 64)
        index.prepare_chunk_offsets(ends, 64)


def _operators(spans: Spans) -> Any:
    """Return a context in which each operator of PyTorch is timed by its name."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return spans.run(f"PyTorch: {func}", func, *args, **(kwargs or {}))

    return Operators()
