"""What `gdn_aot.preload` leaves for the first real calls to do."""

import time
from typing import Any

import torch
from gpu import calls


def random_states() -> list[torch.Tensor]:
    return [torch.get_rng_state(), torch.cuda.get_rng_state()]


def main(options: dict[str, Any]) -> dict[str, Any]:
    """Preload, then make a dense, a packed and a decode call."""
    import gdn_aot

    watch = calls.watched(options)
    torch.manual_seed(7)
    torch.rand(3)
    torch.rand(3, device=calls.DEVICE)
    calls.synchronize()
    left = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    generators, started = random_states(), time.perf_counter()
    taken = gdn_aot.preload(model="qwen3.5-9b", tp=1)
    seconds = time.perf_counter() - started
    calls.synchronize()
    lost = left - torch.cuda.mem_get_info()[0] - torch.cuda.memory_reserved()
    kept = [torch.equal(*pair) for pair in zip(generators, random_states(), strict=True)]
    before = calls.report()

    shape = calls.model_shape()
    prompts = {
        "dense": (calls.operator_inputs(shape, 1, 1000, seed=1), None, None),
        "varlen": (calls.operator_inputs(shape, 1, 1000, seed=2), calls.states(shape, 3, seed=3), (500, 1, 499)),
    }
    step = calls.operator_inputs(shape, 7, 1, seed=4), calls.states(shape, 7, seed=5)
    steps: dict[str, Any] = {}
    for name in ("dense", "varlen", "decode"):
        calls.synchronize()
        torch.cuda.empty_cache()
        free, reserved = torch.cuda.mem_get_info()[0], torch.cuda.memory_reserved()
        began = time.perf_counter()
        result = calls.decode(*step) if name == "decode" else calls.prefill(*prompts[name])
        calls.synchronize()
        steps[name] = {
            "seconds": time.perf_counter() - began,
            "outside_pytorch": (free - torch.cuda.mem_get_info()[0]) - (torch.cuda.memory_reserved() - reserved),
            "modules": calls.report()["modules"],
            "loaded": calls.report()["loaded"],
        }
        del result
    return {
        "taken": taken,
        "lost": max(lost, 0),
        "sm_count": torch.cuda.get_device_properties(0).multi_processor_count,
        "is_int": type(taken) is int,
        "seconds": seconds,
        "random_kept": kept,
        "before": before,
        "steps": steps,
        "watch": watch.to_dict(),
        "report": calls.report(),
    }


if __name__ == "__main__":
    calls.finish(main)
