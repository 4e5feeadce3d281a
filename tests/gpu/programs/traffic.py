"""Random traffic in one process, every result compared with float64.

The calls are those of the workloads of `gdn_aot.providers.fla.workloads`, with inputs as a model makes them.
"""

import random
import time
from typing import Any

import torch
from gpu import calls

from gdn_aot.catalogue.models import ModelShape
from gdn_aot.providers.draw import Random
from gdn_aot.providers.workload import Call, Workload
from gdn_aot.reference import formulas as reference
from gdn_aot.reference import tolerance


class Checker:
    """Makes calls on random inputs, and compares what comes back."""

    def __init__(self) -> None:
        self.worst: dict[str, float] = {}
        self.wrong: list[str] = []
        self.checked = 0

    def make(self, workload: Workload, shape: ModelShape, call: Call, seed: int) -> None:
        with torch.no_grad():
            inputs = workload.inputs(shape, call, Random(seed, calls.DEVICE))
            expected = workload.expect(shape, call, inputs)
            kept = {name: None if value is None else value.clone() for name, value in inputs.items()}
            found = workload.apply(shape, call, inputs)
        made = tolerance.compare(workload.kind, kept, found, expected)
        for reason in filter(None, [made.wrong, tolerance.changed(workload.kind, inputs, kept)]):
            self.wrong.append(f"{call} tp {shape.tp}: {reason}")
        for item in made.deviations:
            if not item.error <= self.worst.get(item.name, 0.0):
                self.worst[item.name] = item.error
        self.checked += 1


def references_agree() -> dict[str, float]:
    """Compare the two forms of the reference with each other, at the shape under test."""
    shape, errors = calls.model_shape(), {}
    for tokens, start in ((65, False), (512, True)):
        inputs = calls.operator_inputs(shape, 2, tokens, seed=tokens)
        initial = calls.states(shape, 2, seed=1) if start else None
        inputs["q"], inputs["k"] = reference.normalized(inputs["q"]), reference.normalized(inputs["k"])
        (out, state), (chunked_out, chunked_state) = (
            form(**inputs, state=initial) for form in (reference.recurrence, reference.chunked)
        )
        errors[f"out.{tokens}"] = calls.relative(chunked_out, out)
        errors[f"state.{tokens}"] = calls.relative(chunked_state, state)
    return errors


def main(options: dict[str, Any]) -> dict[str, Any]:
    """Make ``count`` calls of the ``workloads`` for a ``model`` at tensor-parallel sizes ``tp``, and check each."""
    watch = calls.watched(options)
    from gdn_aot.catalogue.models import find_model
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.providers.fla import workloads as provider

    checker = Checker()
    rng = random.Random(options["seed"])
    limits = Limits(max_tokens=options["max_tokens"], max_batch=options["max_batch"])
    workloads = [provider.WORKLOADS[name]() for name in options["workloads"]]
    shapes = [find_model(options.get("model", calls.MODEL)).shape(tp) for tp in options["tp"]]
    made: dict[str, int] = {}
    tokens, batches = [0], [0]
    started = time.perf_counter()
    with torch.device(calls.DEVICE):
        agreement = references_agree()
        for number in range(options["count"]):
            workload, shape = rng.choice(workloads), rng.choice(shapes)
            call = workload.sample(shape, limits, rng)
            asked = dict(call.arguments)
            batches.append(0 if asked.get("packed") else asked.get("batch", 1))
            tokens.append(sum(asked.get("packed") or [asked.get("batch", 1) * asked.get("tokens", 1)]))
            try:
                checker.make(workload, shape, call, number)
            except Exception as error:  # noqa: BLE001 - the next call may be fine, and one run should tell all
                checker.wrong.append(f"{call} tp {shape.tp}: {type(error).__name__}: {error}")
                if calls.is_fatal(error):
                    break
            made[f"{workload.name} tp {shape.tp}"] = made.get(f"{workload.name} tp {shape.tp}", 0) + 1
        calls.synchronize()
    return {
        "seconds": time.perf_counter() - started,
        "calls": dict(sorted(made.items())),
        "checked": checker.checked,
        "most_tokens": max(tokens),
        "lengths_over_32768": sum(count > 1 << 15 for count in tokens),
        "most_batch": max(batches),
        "wrong": checker.wrong,
        "worst": checker.worst,
        "references_agree": agreement,
        "watch": watch.to_dict(),
        "report": calls.report(),
    }


if __name__ == "__main__":
    calls.finish(main)
