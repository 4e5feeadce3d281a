"""Replay random traffic through the provider's functions and look every key up in an artifact. Compiles nothing.

Runs in the worker process. The traffic is sampled independently of the cases that the trace used, so that it can
find what they forgot.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from msgspec import convert

from gdn_aot import triton_internals
from gdn_aot.catalogue.models import ModelShape
from gdn_aot.catalogue.providers import Limits
from gdn_aot.deployment import Deployment
from gdn_aot.launches import SourceFile, config_from_json
from gdn_aot.providers import makes
from gdn_aot.tracing.recorder import describe_kernel, triton_config
from gdn_aot.tracing.records import MISFITS
from gdn_aot.triton_internals import interception, relaxing
from gdn_aot.triton_internals.autotune_keys import alike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Replayer:
    """Looks up in an artifact what ``JITFunction.run`` and ``Autotuner.run`` would look up."""

    def __init__(self, kernels: dict[str, Any]) -> None:
        self._launches = {name: set(kernel["launches"]) for name, kernel in kernels.items()}
        self._choices = {
            name: {tuple(key): triton_config(config_from_json(config)) for key, config in kernel["choices"]}
            for name, kernel in kernels.items()
        }
        self._relaxed = {name: kernel.get("relaxations", ()) for name, kernel in kernels.items()}
        self._made_from = {
            name: (kernel["cache_key"], [SourceFile(*row) for row in kernel["sources"]])
            for name, kernel in kernels.items()
        }
        self._sources: dict[str, bool] = {}
        self.launches = 0
        self.hits = 0
        self.misses: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._call = ""

    def make(self, call: str, run: Any) -> None:
        """Run one call of the provider with lookups in place of launches."""
        self._call = call
        with interception.intercept(self._on_autotune, self._on_launch):
            run()

    def _on_autotune(self, tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(tuner.configs) == 1:
            return triton_internals.run_config(tuner, args, kwargs, tuner.configs[0])
        name, key = triton_internals.looked_up(tuner, args, kwargs)
        choices = self._choices.get(name, {})
        config = choices.get(key) or choices.get(alike(key, choices, self._relaxed.get(name, ())))
        if config is None:
            self.launches += 1
            self._miss(name, str(key), "", "no choice for this autotune key")
            return None
        return triton_internals.run_config(tuner, args, kwargs, config)

    def _on_launch(self, jit: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.launches += 1
        name = triton_internals.kernel_name(jit)
        launch = triton_internals.Launch(jit, args, kwargs)
        if not self._same_source(name, jit):
            self._miss(name, "", launch.key, "the kernel's source differs from the artifact's")
        elif self._launches.get(name, set()).intersection(
            relaxing.keys_to_look_up(jit, launch.key, self._relaxed.get(name, ()))
        ):
            self.hits += 1
        else:
            self._miss(name, "", launch.key, "no binary for this launch key")

    def _same_source(self, name: str, jit: Any) -> bool:
        if name not in self._sources:
            here, known = describe_kernel(jit), self._made_from.get(name)
            self._sources[name] = known is None or known == (here.cache_key, [*here.sources])
        return self._sources[name]

    def _miss(self, kernel: str, autotune_key: str, launch_key: str, reason: str) -> None:
        first = {
            "kernel": kernel,
            "autotune_key": autotune_key or None,
            "launch_key": launch_key or None,
            "reason": reason,
            "call": self._call,
            "count": 0,
        }
        self.misses.setdefault((kernel, autotune_key, launch_key), first)["count"] += 1


def replay(module: Any, request: dict[str, Any], far: Callable[[int, int, str], None]) -> dict[str, Any]:
    """Serve a coverage request: sample calls, make them, and count.

    ``refused`` are those that the provider refused, ``misfits`` those that failed with one of `MISFITS`. If there is a
    deployment, as many calls again are made of its engine. ``far`` is told how far it is.
    """
    replayer = Replayer(request["kernels"])
    refused: Counter[str] = Counter()
    misfits: Counter[str] = Counter()
    made = 0
    with contextlib.ExitStack() as stack:
        for name, call, run in chain(_sampled(module, request), _engine_calls(module, request, stack)):
            far(made, request["calls"] * (2 if request["deployment"] else 1), call)
            made += 1
            try:
                replayer.make(call, run)
            except Exception as error:  # noqa: BLE001
                counted = misfits if isinstance(error, MISFITS) else refused
                counted[f"{name}: {type(error).__name__}: {error}"] += 1
    return {
        "calls": made,
        "launches": replayer.launches,
        "hits": replayer.hits,
        "misses": list(replayer.misses.values()),
        "refused": [{"reason": reason, "count": count} for reason, count in refused.items()],
        "misfits": [{"reason": reason, "count": count} for reason, count in misfits.items()],
    }


def _sampled(module: Any, request: dict[str, Any]) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Yield random calls of workloads: the name of the workload, what is called, and what calls it."""
    shapes = [ModelShape(**shape) for shape in request["shapes"]]
    limits = Limits(**request["limits"])
    workloads = [module.WORKLOADS[name]() for name in request["workloads"] if name in module.WORKLOADS]
    rng = random.Random(request["seed"])  # noqa: S311
    for _ in range(request["calls"]):
        shape = rng.choice(shapes)
        fitting = [workload for workload in workloads if makes(request["provider"], workload, shape)]
        if fitting:
            workload = rng.choice(fitting)
            call = workload.sample(shape, limits, rng)
            yield (
                workload.name,
                f"{call} on {shape.name} tp {shape.tp} {shape.dtype}",
                partial(workload.run, shape, call),
            )


def _engine_calls(
    module: Any, request: dict[str, Any], stack: contextlib.ExitStack
) -> Iterator[tuple[str, str, Callable[[], object]]]:
    if not request.get("deployment"):
        return
    engine = stack.enter_context(module.deployed(convert(request["deployment"], Deployment)))
    samples = engine.samples(random.Random(request["seed"]))  # noqa: S311
    for call, run in islice(samples, request["calls"]):
        yield "deployment", call, run
