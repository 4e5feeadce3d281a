"""The same calls served from the artifact, or by FLA alone with the artifact's configurations."""

import json
from pathlib import Path
from typing import Any

import torch
from gpu import calls, fla_configs

from gdn_aot.reference import formulas as reference


def exact_recurrence(tp: int) -> dict[str, float]:
    """Return how far the dense prefill of 300 tokens and its decode steps are from the float64 recurrence."""
    shape, errors = calls.model_shape(tp), {}
    inputs = calls.operator_inputs(shape, 1, 300, seed=1)
    found = {"chunk": calls.prefill(inputs), "recurrent": calls.decode(inputs, calls.states(shape, 1, seed=5))}
    inputs["q"], inputs["k"] = reference.normalized(inputs["q"]), reference.normalized(inputs["k"])
    for name, initial in (("chunk", None), ("recurrent", calls.states(shape, 1, seed=5))):
        out, state = reference.recurrence(**inputs, state=initial)
        errors[f"{name}.out"] = calls.relative(found[name]["out"], out)
        errors[f"{name}.state"] = calls.relative(found[name]["state"], state)
    return errors


def main(options: dict[str, Any]) -> dict[str, Any]:
    """Save the results, or compare them with those saved by another process."""
    watch = calls.watched(options)
    if not options["served"]:
        fla_configs.force(json.loads(Path(options["choices"]).read_text(encoding="utf-8")))
    results = {f"tp{tp} {name}": value for tp in (1, 2) for name, value in calls.sample_calls(tp).items()}
    calls.synchronize()
    answer: dict[str, Any] = {"watch": watch.to_dict(), "names": sorted(results)}
    if options["served"]:
        answer["exact"] = {f"tp{tp} {name}": error for tp in (1, 2) for name, error in exact_recurrence(tp).items()}
        answer["watch"] = watch.to_dict()
        answer["report"] = calls.report()
        torch.save({name: value.cpu() for name, value in results.items()}, options["saved"])
        return answer
    saved = torch.load(options["saved"])
    answer["differ"] = {
        name: calls.relative(value.cpu(), saved[name]) if value.shape == saved[name].shape else "shape"
        for name, value in results.items()
        if not torch.equal(value.cpu(), saved[name])
    }
    answer["zero"] = [name for name, value in saved.items() if not bool(value.any())]
    return answer


if __name__ == "__main__":
    calls.finish(main)
