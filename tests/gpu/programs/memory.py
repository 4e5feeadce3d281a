"""The first prefill on a card that is almost full."""

import time
from typing import Any

import torch
from gpu import calls

MIB = 1 << 20
TOKENS = 4096


def fill(left: int) -> list[torch.Tensor]:
    """Allocate all device memory but ``left`` bytes, to 2 MiB."""
    torch.cuda.empty_cache()
    held = []
    for _ in range(8):
        free, _ = torch.cuda.mem_get_info()
        size = (free - left) // (2 * MIB) * (2 * MIB)
        if size <= 0:
            break
        held.append(torch.empty(size, dtype=torch.uint8, device=calls.DEVICE))
    return held


def attempt(inputs: calls.Tensors, state: torch.Tensor) -> dict[str, Any]:
    """Make one prefill; return what it took, or why it failed."""
    torch.cuda.reset_peak_memory_stats()
    allocated, started = torch.cuda.memory_allocated(), time.perf_counter()
    answer: dict[str, Any] = {"error": ""}
    try:
        result = calls.prefill(inputs, state, (TOKENS,))
        calls.synchronize()
        answer["peak_mib"] = (torch.cuda.max_memory_allocated() - allocated) / MIB
        answer["finite"] = all(bool(torch.isfinite(value).all()) for value in result.values())
        answer["digests"] = calls.digests(result)
        del result
    except torch.OutOfMemoryError as error:
        answer["error"] = f"{type(error).__name__}: {error}"
    answer["seconds"] = time.perf_counter() - started
    answer["free_mib"] = torch.cuda.mem_get_info()[0] / MIB
    return answer


def main(options: dict[str, Any]) -> dict[str, Any]:
    """Fill the card and make the first call; if it succeeds, make it again."""
    watch = calls.watched(options)
    import fla.ops.gated_delta_rule  # noqa: F401

    shape = calls.model_shape()
    inputs, state = calls.operator_inputs(shape, 1, TOKENS, seed=1), calls.states(shape, 1, seed=2)
    calls.synchronize()
    held = fill(options["left_mib"] * MIB)
    free, total = torch.cuda.mem_get_info()
    answer: dict[str, Any] = {"left_mib": free / MIB, "total_mib": total / MIB}
    answer["first"] = attempt(inputs, state)
    if not answer["first"]["error"]:
        answer["second"] = attempt(inputs, state)
    del held
    answer["watch"] = watch.to_dict()
    if options["served"]:
        answer["report"] = calls.report()
    return answer


if __name__ == "__main__":
    calls.finish(main)
