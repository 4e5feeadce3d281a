"""Random steps of SGLang's own layers on its own pool of states: served from the artifact, or by plain SGLang.

Steps, inputs and sizes of pools follow from the seed alone, so that both have the same. Where the artifact serves,
every result is also compared with float64.
"""

import json
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu import calls, fla_configs
from gpu.programs.traffic import Checker

KINDS = ("prefill", "decode", "mixed", "speculative")
_STATES = 1024
"""Most states of requests in all layers of a pool: 2 MiB each, with drafts five times as much."""
_LAYERS = 2
"""Least layers of a pool whose number is of another class than 1 and multiples of 16."""
_RESERVED = 20 << 30
"""Bytes above which a process gives back what it does not use, since others need the card too."""


class Compared(Checker):
    """Makes steps and keeps the bits of what comes back; with ``exact`` it compares with float64 too."""

    def __init__(self, *, exact: bool) -> None:
        super().__init__()
        self._exact = exact
        self.bits: list[dict[str, str]] = []
        """For each step, what comes back -> a hash of its bits."""

    def make(self, workload: Any, shape: Any, call: Any, seed: int) -> None:
        from gdn_aot.providers.draw import Random
        from gdn_aot.reference import tolerance

        inputs = workload.inputs(shape, call, Random(seed, calls.DEVICE))
        kept = {name: value.clone() for name, value in inputs.items()} if self._exact else {}
        found = workload.apply(shape, call, inputs)
        self.bits.append(calls.digests(found))
        if not self._exact:
            return
        made = tolerance.compare(workload.kind, kept, found, workload.expect(shape, call, kept))
        for reason in filter(None, [made.wrong, tolerance.changed(workload.kind, inputs, kept)]):
            self.wrong.append(f"{call} of {shape.name}: {reason}"[:2000])
        for item in made.deviations:
            if not item.error <= self.worst.get(item.name, 0.0):
                self.worst[item.name] = item.error
        self.checked += 1


def fitting(step: Any) -> Any:
    """Return a step in a pool with so few layers that several processes have room on a card."""
    return replace(step, layers=min(step.layers, max(_LAYERS, _STATES // step.batch)))


def main(options: dict[str, Any]) -> dict[str, Any]:
    """Make ``count`` steps of the ``models``. ``choices`` are a file with what plain SGLang is to take."""
    watch = calls.watched(options)
    from gdn_aot.catalogue.models import find_model
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.providers.sglang import workloads as provider
    from gdn_aot.providers.sglang.steps import Step

    forced = [] if options["served"] else fla_configs.force(json.loads(Path(options["choices"]).read_text()))
    compared = Compared(exact=options["served"])
    rng = random.Random(options["seed"])
    limits = Limits(max_tokens=options["max_tokens"], max_batch=1)
    workloads = [provider.WORKLOADS[name]() for name in KINDS]
    shapes = [find_model(name).shape(1) for name in options["models"]]
    made: Counter[str] = Counter()
    started = time.perf_counter()
    with torch.device(calls.DEVICE), torch.no_grad():
        for number in range(options["count"]):
            workload, shape = workloads[number % len(KINDS)], rng.choice(shapes)
            step = fitting(Step.of(workload.sample(shape, limits, rng)))
            made[f"{workload.name} of {shape.name}"] += 1
            made["merged"] += step.merged
            made["radix cache"] += step.radix
            made["graph"] += step.graph > 0
            made["bfloat16 states"] += step.deployment.state == "bfloat16"
            try:
                compared.make(workload, shape, step.call(workload.name), number)
            except Exception as error:  # noqa: BLE001 - the next step may be fine, and one run should tell all
                compared.wrong.append(f"{workload.name} of {shape.name}: {type(error).__name__}: {error}"[:2000])
                compared.bits.append({})
                if calls.is_fatal(error):
                    break
            if torch.cuda.memory_reserved() > _RESERVED:
                torch.cuda.empty_cache()
    calls.synchronize()
    return {
        "seconds": time.perf_counter() - started,
        "steps": dict(sorted(made.items())),
        "checked": compared.checked,
        "wrong": compared.wrong,
        "worst": compared.worst,
        "bits": compared.bits,
        "forced": forced,
        "most_memory": torch.cuda.max_memory_allocated(),
        "watch": watch.to_dict(),
        "report": calls.report() if options["served"] else {},
    }


if __name__ == "__main__":
    calls.finish(main)
