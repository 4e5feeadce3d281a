"""Whether calls through the loader are as fast as plain Triton's once everything is loaded.

One process has both: what Triton itself compiled or read from its cache for FLA's configuration files made from the
artifact, and what the loader seeds. Before each round the kernels' two dictionaries, ``JITFunction.device_caches`` and
``Autotuner.cache``, are exchanged, so that everything else is the same: process, memory, clocks. Rounds alternate, and
which of the two comes first alternates too.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from cold_start.worker import Channel, Process

BOTH = ("plain", "loader")


def compare(process: Process, channel: Channel) -> dict[str, Any]:
    """Measure calls that wait for the device, and short ones that do not, with both."""
    import torch
    from fla.ops.utils import cache

    from cold_start import calls

    spec = process.spec
    inputs = {name: calls.host_inputs(name) for name in calls.TOKENS}
    channel.wait(**process.times)
    made = {name: calls.prepare(tensors, process.device) for name, tensors in inputs.items()}
    kernels = _kernels_of(made)
    plain = [_Dictionaries(jit, tuner) for jit, tuner in kernels]
    digests = {"plain": {name: _digest(call) for name, call in made.items()}}
    counts = process.counters.read()
    cache.FLA_CACHE_MODE = cache.FlaCacheMode.DISABLED  # as it is for those who do not use it
    for jit, tuner in kernels:
        jit.device_caches = defaultdict(jit.create_binder)
        if tuner is not None:
            tuner.cache = {}
    process.install()
    digests["loader"] = {name: _digest(call) for name, call in made.items()}
    after = process.counters.read()
    loader = [_Dictionaries(jit, tuner) for jit, tuner in kernels]
    modes = {"plain": plain, "loader": loader}

    found: dict[str, Any] = {
        "kernels": len(kernels),
        "same_results": digests["plain"] == digests["loader"],
        "same_configurations": [one.configs() for one in plain] == [one.configs() for one in loader],
        "plain": counts,
        "loader": {name: after[name] - counts[name] for name in counts},
        **process.extras(),
    }
    rounds = spec["rounds"]
    for name, number, wait in (("small", 200, False), ("dense", 40, True), ("varlen", 40, True)):
        found[name] = _alternate(modes, made[name], rounds, max(1, number // spec["shorten"]), wait, torch)
    return found


class _Dictionaries:
    """The two dictionaries in which Triton looks up a kernel, as they are now."""

    def __init__(self, jit: Any, tuner: Any) -> None:
        self._jit, self._tuner = jit, tuner
        self._caches = jit.device_caches
        self._choices = tuner.cache if tuner is not None else None

    def use(self) -> None:
        """Put them back."""
        self._jit.device_caches = self._caches
        if self._tuner is not None:
            self._tuner.cache = self._choices

    def configs(self) -> dict[str, str]:
        """Return the configuration of each autotune key."""
        return {str(key): str(config) for key, config in (self._choices or {}).items()}


def _kernels_of(made: dict[str, Callable[[], Any]]) -> list[tuple[Any, Any]]:
    """Make each call once and return (``JITFunction``, ``Autotuner`` or None) of every kernel that they launch."""
    from triton.runtime.jit import KernelInterface

    from gdn_aot.triton_internals.serving import layers

    seen: dict[int, Any] = {}
    original = KernelInterface.__getitem__

    def note(kernel: Any, grid: Any) -> Any:
        seen.setdefault(id(kernel), kernel)
        return original(kernel, grid)

    KernelInterface.__getitem__ = note
    try:
        for call in made.values():
            call()
    finally:
        KernelInterface.__getitem__ = original
    return [layers(kernel) for kernel in seen.values()]


def _digest(call: Callable[[], Any]) -> dict[str, Any]:
    from cold_start.calls import digest

    return digest(call())


def _alternate(
    modes: dict[str, list[_Dictionaries]], call: Callable[[], Any], rounds: int, number: int, wait: bool, torch: Any
) -> dict[str, Any]:
    """Return milliseconds per call of each, and the ratio loader / plain of each pair of rounds."""
    times: dict[str, list[float]] = {mode: [] for mode in BOTH}
    for turn in range(rounds + 1):
        for mode in BOTH if turn % 2 else BOTH[::-1]:
            for dictionaries in modes[mode]:
                dictionaries.use()
            call()
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(number):
                call()
                if wait:
                    torch.cuda.synchronize()
            taken = time.perf_counter() - start
            torch.cuda.synchronize()
            if turn:  # the first warms up
                times[mode].append(1000 * taken / number)
    ratios = [loader / plain for plain, loader in zip(times["plain"], times["loader"], strict=True)]
    return {
        "calls_per_round": number,
        "rounds": rounds,
        "waits": wait,
        **{f"{mode}_ms": statistics.median(times[mode]) for mode in BOTH},
        "ratio": statistics.median(times["loader"]) / statistics.median(times["plain"]),
        "ratio_of_pairs": statistics.median(ratios),
        "ratio_low": sorted(ratios)[len(ratios) // 4],
        "ratio_high": sorted(ratios)[-1 - len(ratios) // 4],
    }
