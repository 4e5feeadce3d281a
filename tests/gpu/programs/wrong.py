"""The same calls by FLA alone, or served from a store whose artifact is wrong."""

from typing import Any

import torch
from gpu import calls


def _calls() -> dict[str, torch.Tensor]:
    shape = calls.model_shape()
    inputs = calls.operator_inputs(shape, 1, 300, seed=1)
    step = calls.operator_inputs(shape, 2, 1, seed=2)
    made = {"prefill": calls.prefill(inputs), "decode": calls.decode(step, calls.states(shape, 2, seed=3))}
    return {f"{call}.{name}": value for call, results in made.items() for name, value in results.items()}


def main(options: dict[str, Any]) -> dict[str, Any]:
    """Save the results, or compare them with those saved by another process."""
    import gdn_aot

    if options["served"]:
        gdn_aot.install()
    watch = calls.Watch()
    results = _calls()
    calls.synchronize()
    if not options["served"]:
        torch.save({name: value.cpu() for name, value in results.items()}, options["saved"])
        return {"names": sorted(results)}
    first = watch.to_dict()
    again = _calls()
    calls.synchronize()
    saved = torch.load(options["saved"])
    return {
        "watch": first,
        "again": watch.to_dict(),
        "report": calls.report(),
        "differ": {name: calls.relative(value.cpu(), saved[name]) for name, value in results.items()},
        "same": [name for name, value in again.items() if torch.equal(value, results[name])],
    }


if __name__ == "__main__":
    calls.finish(main)
