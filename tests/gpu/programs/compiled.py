"""A decode loop compiled by ``torch.compile``, and a CUDA graph of it, with the results of the same loop uncompiled."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu import calls

STEPS = 8
BATCH = 3
EXAMPLE = Path(__file__).parents[3] / "examples" / "compiled"

Step = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def step(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor, beta: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode one token of every sequence, between operations that a compiler fuses; doubling is exact."""
    from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule

    out, last = fused_recurrent_gated_delta_rule(
        q=q, k=k, v=v + v, g=g, beta=beta, initial_state=state, output_final_state=True, use_qk_l2norm_in_kernel=True
    )
    return out + out, last


def run(function: Step) -> calls.Tensors:
    """Return what a few steps give, each with the state of the one before."""
    shape = calls.model_shape()
    state, outputs = calls.states(shape, BATCH, seed=5), []
    with torch.no_grad():
        for number in range(STEPS):
            out, state = function(**calls.operator_inputs(shape, BATCH, 1, 40 + number), state=state.clone())
            outputs.append(out.clone())
    return {"out": torch.stack(outputs), "state": state.clone()}


def captured(function: Step) -> Step:
    """Return a function that replays a CUDA graph of one step."""
    shape = calls.model_shape()
    given = {**calls.operator_inputs(shape, BATCH, 1, 40), "state": calls.states(shape, BATCH, seed=5)}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        for _ in range(3):
            function(**given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        results = function(**given)

    def replay(**new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for name, value in new.items():
            given[name].copy_(value)
        graph.replay()
        return results

    return replay


def ways() -> dict[str, Step]:
    """Return the step compiled by the backends that leave kernels to Triton."""
    return {backend: torch.compile(step, backend=backend) for backend in ("eager", "aot_eager")}


def inductors() -> dict[str, Step]:
    """Return the step compiled by Inductor, with FLA's function kept out of its code as the example does."""
    sys.path.insert(0, str(EXAMPLE))
    importlib.import_module("decode")
    return {"inductor": torch.compile(step), "reduce-overhead": torch.compile(step, mode="reduce-overhead")}


def inductor_alone(watch: calls.Watch) -> dict[str, Any]:
    """Have Inductor compile FLA's kernel itself, which strict mode does not allow; say what it said."""
    before = len(watch.compiled)
    try:
        run(torch.compile(step))
        error = ""
    except Exception as raised:  # noqa: BLE001 - Inductor wraps what is raised in it
        error = str(raised)
    torch._dynamo.reset()
    return {"error": error, "compiled": len(watch.compiled) - before}


def main(options: dict[str, Any]) -> dict[str, Any]:
    """Run the loop in every way; compare each with the uncompiled one, bit by bit."""
    watch = calls.watched(options)
    expected = run(step)
    alone = inductor_alone(watch) if options["inductor"] else {}
    misses = len(calls.report()["misses"])
    found: dict[str, dict[str, bool]] = {}

    def compare(name: str, function: Step) -> None:
        for kind, made in ((name, function), (f"graph of {name}", None)):
            if kind.startswith("graph of reduce-overhead"):
                continue  # which makes CUDA graphs itself
            results = run(made or captured(function))
            calls.synchronize()
            found[kind] = {key: torch.equal(value, expected[key]) for key, value in results.items()}
        torch._dynamo.reset()

    for name, function in ways().items():
        compare(name, function)
    for name, function in inductors().items() if options["inductor"] else ():
        compare(name, function)
    report = calls.report()
    return {
        "found": found,
        "alone": alone,
        "new_misses": len(report["misses"]) - misses,
        "breaks": sum(torch._dynamo.utils.counters["graph_break"].values()),
        "watch": watch.to_dict(),
        "report": report,
    }


if __name__ == "__main__":
    calls.finish(main)
