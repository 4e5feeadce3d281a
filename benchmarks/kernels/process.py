"""The processes of ``benchmarks/kernels.py``: what the call launches, what FLA chooses for it, and a large copy."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from counting import Counters

from gdn_aot.catalogue.models import GDN, KDA

if TYPE_CHECKING:
    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.providers.workload import Call, Workload

PROVIDER = "fla"
WORKLOADS = {GDN: "transformers-prefill", KDA: "transformers-kda-prefill"}
"""Of each family, what has the call."""
KERNELS = {GDN: 7, KDA: 8}
"""Autotuned launches of the call: six or seven kernels, that of the norm for queries and for keys."""
_WANTED = {"batch": 1, "packed": None, "h0": False, "ht": True, "l2norm": True}
_COPIED = 2 << 30
"""Bytes of the copy that the bandwidth is taken from."""
_COPIES, _WARM_UP = 20, 3


def _load(spec: dict[str, Any]) -> tuple[Workload, ModelShape, Limits]:
    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.providers import load

    shape = ModelShape(**spec["shape"])
    workload = load(PROVIDER).WORKLOADS[WORKLOADS[shape.family]]()
    return workload, shape, Limits(max_tokens=max(spec["tokens"]), max_batch=1)


def _find(workload: Workload, shape: ModelShape, tokens: int, limits: Limits) -> Call:
    """Return the call that is measured: one dense prompt, no state before, the state after wanted."""
    for call in workload.tune(shape, tokens, limits):
        arguments = dict(call.arguments)
        if all(arguments[name] == value for name, value in {**_WANTED, "tokens": tokens}.items()):
            return call
    raise LookupError(f"{workload.name} has no such call of {tokens} tokens")


def launches(spec: dict[str, Any]) -> dict[str, Any]:
    """Return what the call of a shape launches, by tokens: ``kernel``, autotune ``key``, and ``moved``. Needs no card.

    ``moved`` are the bytes of all tensors among the arguments: each is read once or written once, as a whole.
    """
    from gdn_aot.catalogue.targets import get_target
    from gdn_aot.tracing import stub

    stub.activate(get_target(spec["target"]))
    workload, shape, limits = _load(spec)
    found = {}
    for tokens in spec["tokens"]:
        found[tokens] = _launches(workload, shape, _find(workload, shape, tokens, limits))
        if len(found[tokens]) != (count := KERNELS[shape.family]):
            raise LookupError(f"{tokens} tokens launch {len(found[tokens])} autotuned kernels, not {count}")
    return {"answer": found}


def _launches(workload: Workload, shape: ModelShape, call: Call) -> list[dict[str, Any]]:
    import torch

    from gdn_aot import triton_internals
    from gdn_aot.triton_internals import interception

    found: list[dict[str, Any]] = []

    def on_autotune(tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        plain = {name: value for name, value in kwargs.items() if name not in ("grid", "warmup")}
        tensors = [value for value in (*args, *plain.values()) if isinstance(value, torch.Tensor)]
        found.append(
            {
                "kernel": triton_internals.kernel_name(triton_internals.layers(tuner)[0]),
                "key": triton_internals.autotune_key(tuner, args, plain),
                "moved": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            }
        )

    with interception.intercept(on_autotune, lambda *_: None):
        workload.run(shape, call)
    return found


def copy(_spec: dict[str, Any]) -> dict[str, Any]:
    """Return the bytes per second, read and written, of a large copy on the device."""
    import torch

    source = torch.empty(_COPIED, dtype=torch.uint8, device="cuda").zero_()
    there = torch.empty_like(source)
    times = []
    for _ in range(_COPIES + _WARM_UP):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        there.copy_(source)
        last.record()
        torch.cuda.synchronize()
        times.append(first.elapsed_time(last) / 1000)
    seconds = times[_WARM_UP:]
    per_second = 2 * _COPIED / statistics.median(seconds)
    return {"answer": {"bytes": _COPIED, "seconds": seconds, "bytes_per_second": per_second}}


def pick(spec: dict[str, Any]) -> dict[str, Any]:
    """Let plain FLA tune itself at each length in turn, from nothing, and return what it took.

    Raises:
        RuntimeError: It compiled something, or did not benchmark every configuration that it offers.
    """
    import torch

    device = "cuda"
    if spec["dry"]:
        import stand_in

        device = stand_in.start(spec["target"])
    counters, tuners = Counters(), _watch()
    from gdn_aot.providers.draw import Random

    workload, shape, limits = _load(spec)
    found = []
    for tokens in spec["tokens"]:
        call = _find(workload, shape, tokens, limits)
        before, start = counters.read(), time.perf_counter()
        with torch.device(device), torch.no_grad():
            workload.apply(shape, call, workload.inputs(shape, call, Random(0, device)))
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        counts = {name: value - before[name] for name, value in counters.read().items()}
        offered = sum(len(tuner.cache) * len(tuner.configs) for tuner in tuners.values())
        if counts["compiled"] or counts["benchmarked"] != offered or not offered:
            raise RuntimeError(f"{call}: FLA offers {offered} configurations, Triton did {counts}")
        if any(tuner.cache_results for tuner in tuners.values()):
            raise RuntimeError("Triton keeps FLA's choices on disk")
        found.append({"tokens": tokens, "seconds": round(seconds, 2), **counts, "picks": _take(tuners)})
    return {"answer": found}


def _watch() -> dict[int, Any]:
    """Return a dictionary that every autotuner that runs from now on is put into."""
    from triton.runtime.autotuner import Autotuner

    seen: dict[int, Any] = {}
    run = Autotuner.run

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen[id(self)] = self
        return run(self, *args, **kwargs)

    Autotuner.run = watched
    return seen


def _take(tuners: dict[int, Any]) -> list[dict[str, Any]]:
    """Return what each autotuner has in its cache, and empty it."""
    from gdn_aot import triton_internals

    picks = []
    for tuner in tuners.values():
        name = triton_internals.kernel_name(triton_internals.layers(tuner)[0])
        for key, config in tuner.cache.items():
            fields = ("num_warps", "num_stages", "num_ctas", "maxnreg")
            values = {field: getattr(config, field) for field in fields}
            picks.append({"kernel": name, "key": key, "config": {"kwargs": list(config.kwargs.items()), **values}})
        tuner.cache.clear()
    return picks


KINDS = {"launches": launches, "copy": copy, "pick": pick}
