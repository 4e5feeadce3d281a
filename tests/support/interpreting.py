"""Judges an engine's layer that Triton's interpreter runs; of `providers/vllm_interpreted.py` and SGLang's."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from gdn_aot.catalogue.models import find_model
from gdn_aot.providers.draw import Random
from gdn_aot.reference.tolerance import compare


def judge(provider: Any, sizes: Mapping[str, Any], steps: Iterable[tuple[str, Any]]) -> None:
    """Run steps on both layers of Qwen with small ``sizes`` and print as JSON what differs from float64.

    Each row also has what is found of a state that is a tenth of its mean off.
    """
    rows = []
    for layer in ("qwen3-next", "qwen3.5"):
        shape = replace(find_model("qwen3.5-9b").shape(1), **sizes, layer=layer)
        for kind, step in steps:
            workload, call = provider.WORKLOADS[kind](), step.call(kind)
            inputs = workload.inputs(shape, call, Random(5, "cpu"))
            expected = workload.expect(shape, call, inputs)
            kept = {name: None if value is None else value.clone() for name, value in inputs.items()}
            found = workload.apply(shape, call, inputs)
            made = compare(workload.kind, kept, found, expected)
            state = found["state"]
            assert state is not None
            other = compare(workload.kind, kept, {**found, "state": state + 0.1 * state.abs().mean()}, expected)
            rows.append(
                {
                    "layer": layer,
                    "kind": kind,
                    "wrong": made.wrong,
                    "compared": len(made.deviations),
                    "with another state": other.wrong,
                }
            )
    print(json.dumps(rows))
