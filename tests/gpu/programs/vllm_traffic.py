"""Random steps of vLLM's scheduler through its own layers in one process, every result compared with float64."""

import random
import time
from typing import Any

import torch
from gpu import calls
from gpu.programs.traffic import Checker


def main(options: dict[str, Any]) -> dict[str, Any]:
    """Make ``count`` random calls for a ``model`` at tensor-parallel sizes ``tp``, with an artifact's workloads."""
    watch = calls.watched(options)
    from gdn_aot.catalogue.models import find_model
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.providers import load

    provider, checker = load("vllm"), Checker()
    rng = random.Random(options["seed"])
    shapes = [find_model(options["model"]).shape(tp) for tp in options["tp"]]
    limits = Limits(max_tokens=options["max_tokens"])
    workloads = [provider.WORKLOADS[name]() for name in options["workloads"]]
    made: dict[str, int] = {}
    started = time.perf_counter()
    with torch.device(calls.DEVICE):
        for number in range(options["count"]):
            shape = rng.choice(shapes)
            workload = rng.choice([one for one in workloads if one.applies(shape)])
            call = workload.sample(shape, limits, rng)
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
        "wrong": checker.wrong,
        "worst": checker.worst,
        "watch": watch.to_dict(),
        "report": calls.report(),
    }


if __name__ == "__main__":
    calls.finish(main)
