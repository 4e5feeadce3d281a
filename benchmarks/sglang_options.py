"""What other warps and stages would make of SGLang's kernels that have one hard-coded configuration; for information.

On a GPU: ``python benchmarks/sglang_options.py [--out FILE]``. SGLang's layer makes steps in the shape of Qwen3.5-9B.
Each launch is caught, its kernel compiled with every number of warps and stages, and what computes the same as SGLang's
own configuration (`gdn_aot.measuring.gate`) is timed beside it on the tensors of that launch. Blocks stay as they are:
grids follow from them. No artifact takes any of it: SGLang's own configurations are what it was tested with.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import multiprocessing
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gdn_aot.measuring.card import Launchable

WARPS, STAGES = (1, 2, 4, 8), (1, 2, 3, 4)
ROUNDS = 15
STEPS: dict[str, tuple[str, int, int, int]] = {
    "prompt of 512": ("extend", 1, 512, 0),
    "prompt of 2048": ("extend", 1, 2048, 0),
    "prompt of 8192": ("extend", 1, 8192, 0),
    "decode of 1": ("decode", 1, 1, 0),
    "decode of 64": ("decode", 64, 1, 0),
    "decode of 256": ("decode", 256, 1, 0),
    "3 drafts of 32": ("verify", 32, 4, 3),
}
"""Name -> kind, requests, tokens of each, drafts."""

Variant = tuple[int, int]
"""Warps and stages."""
_task: Any = None
"""What a forked compiler compiles: it has the kernel from its parent."""


def _compile(options: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]] | str:
    """Compile the task with some options more. Returns the code and Triton's metadata, or why there is none."""
    from gdn_aot import triton_internals

    jit, specialization, capability = _task
    source = triton_internals.make_source(jit, specialization)
    try:
        code, metadata, _ = triton_internals.compile_source(
            source, {**specialization["options"], **options}, capability
        )
    except Exception as error:  # noqa: BLE001 - a variant that cannot be compiled is one
        return triton_internals.compiler_message(error).splitlines()[0][:200]
    return code, metadata


class Search:
    """Takes the place of Triton while a step is made, and measures each launch of a kernel that is not autotuned."""

    def __init__(self, card: Any, capability: int) -> None:
        self._card, self._capability = card, capability
        self._known: dict[tuple[str, str], dict[Variant, Launchable]] = {}
        self._tuned = False
        self.step = ""
        self.rows: list[dict[str, Any]] = []

    def on_autotune(self, tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Launch an autotuned kernel with its first configuration; ``gdn-aot tune`` measures those that have more."""
        from gdn_aot import triton_internals

        self._tuned = len(tuner.configs) > 1
        try:
            return triton_internals.run_config(tuner, args, kwargs, tuner.configs[0])
        finally:
            self._tuned = False

    def on_launch(self, jit: Any, args: tuple[Any, ...], kwargs: dict[str, Any], grid: Any) -> None:
        """Measure a launch, and leave the results of SGLang's own configuration."""
        from gdn_aot import triton_internals
        from gdn_aot.measuring import gate
        from gdn_aot.records.objective import sample
        from gdn_aot.triton_internals.direct import BoundLaunch

        bound = BoundLaunch(jit, args, kwargs, grid, lambda *_: {})
        name = triton_internals.kernel_name(jit)
        known = self._known.get((name, bound.key))
        if known is None:
            specialization = triton_internals.Launch(jit, args, kwargs).specialization()
            known = self._known[name, bound.key] = self._made(jit, bound.key, specialization)
        calls = {variant: partial(launch, bound.grid, bound.arguments) for variant, launch in known.items()}
        own, *others = calls
        if not others:
            calls[own]()
            return
        try:
            effects = gate.find_effects(bound.arguments, calls[own])
        except ValueError as error:
            self.rows.append({"step": self.step, "kernel": name, "not measured": str(error)})
            calls[own]()
            return
        right = [own]
        for variant in others:
            effects.restore()
            effects.poison()
            calls[variant]()
            self._card.synchronize()
            right += [variant] if effects.objection() is None else []
        if effects.outputs:
            times = self._card.time([calls[variant] for variant in right], effects.restore, ROUNDS)
            us = {variant: sample(row).us for variant, row in zip(right, times, strict=True)}
            best = min(us, key=lambda variant: us[variant])
            found = {"own": own, "own_us": us[own], "best": best, "best_us": us[best], "times": us[own] / us[best]}
            found |= {"other_results": len(calls) - len(right), "us": {f"{w} {s}": us[w, s] for w, s in right}}
            self.rows.append({"step": self.step, "kernel": name, **found})
        effects.finish()

    def _made(self, jit: Any, key: str, specialization: dict[str, Any]) -> dict[Variant, Launchable]:
        """Return what a kernel is launched with, by variant, SGLang's own first and no code twice."""
        global _task  # noqa: PLW0603
        from gdn_aot.store.index_records import BinaryRecord

        _task = jit, specialization, self._capability
        wanted = [{"num_warps": warps, "num_stages": stages} for warps, stages in itertools.product(WARPS, STAGES)]
        wanted = [{}] if self._tuned else [{}, *wanted]
        with multiprocessing.get_context("fork").Pool(min(len(wanted), os.cpu_count() or 1)) as pool:
            made = pool.map(_compile, wanted, chunksize=1)
        if isinstance(made[0], str):
            raise SystemExit(f"{jit.__name__} cannot be compiled: {made[0]}")
        found: dict[Variant, Launchable] = {}
        digests = set()
        for one in made:
            if isinstance(one, str) or (digest := hashlib.sha256(one[0]).hexdigest()) in digests:
                continue
            digests.add(digest)
            record = BinaryRecord(key, digest, one[1], specialization)
            found[one[1]["num_warps"], one[1]["num_stages"]] = self._card.load(jit, record, one[0])
        return found


def main() -> None:
    """Make every step, and write what was found of each launch."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--out", type=Path, default=harness.RESULTS / "sglang_options.json")
    out = parser.parse_args().out
    from gdn_aot.measuring.card import Cuda

    card = Cuda()
    import torch

    from gdn_aot.catalogue.models import find_model
    from gdn_aot.providers.draw import Random
    from gdn_aot.providers.sglang import workloads as provider
    from gdn_aot.providers.sglang.steps import Deployment, Group, Step
    from gdn_aot.triton_internals import interception

    major, minor = torch.cuda.get_device_capability()
    search, shape = Search(card, 10 * major + minor), find_model("qwen3.5-9b").shape(1)
    about = harness.machine("torch", "triton", "sglang")
    workload = provider.Steps("prefill")
    for name, (kind, requests, tokens, drafts) in STEPS.items():
        search.step = name
        groups = (Group(requests, 0 if kind == "extend" else 64, tokens, drafts),)
        step = Step(kind=kind, groups=groups, deployment=Deployment(state="float32", drafts=drafts))
        with torch.device(card.device), torch.no_grad():
            inputs = workload.inputs(shape, step.call("prefill"), Random(0, card.device))
            with interception.intercept_live(search.on_autotune, search.on_launch):
                workload.apply(shape, step.call("prefill"), inputs)
        harness.save(out, {"machine": about, "rows": search.rows})
    for row in search.rows:
        if row.get("times", 1.0) > 1.0:
            kernel = row["kernel"].partition(":")[2]
            found = f"{row['own']} {row['own_us']:8.1f} us, {row['best']} {row['best_us']:8.1f} us"
            print(f"{row['step']:>15}  {kernel:<60} {found}")


if __name__ == "__main__":
    main()
