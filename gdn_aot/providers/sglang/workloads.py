"""Provider ``sglang``: the layers of SGLang with a gated delta rule, run on steps of its scheduler.

Importing this module imports SGLang: do it under the stub driver.
"""
# ruff: noqa: E402 - SGLang is prepared for before it is imported

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from gdn_aot.providers.sglang.platform import on_target, prepare

prepare()

from gdn_aot.catalogue.models import KDA
from gdn_aot.providers import traffic
from gdn_aot.providers.contentless import contentless
from gdn_aot.providers.draw import EMPTY
from gdn_aot.providers.norm_rows import SM_COUNTS, norm_rows
from gdn_aot.providers.sglang import gdn as sglang_gdn
from gdn_aot.providers.sglang import layer as sglang_layer
from gdn_aot.providers.sglang import reference as sglang_reference
from gdn_aot.providers.sglang import steps as sglang_steps
from gdn_aot.providers.sglang import versions as sglang_versions
from gdn_aot.providers.sglang.relaxations import ARGUMENTS, RELAXATIONS
from gdn_aot.providers.sglang.steps import DRAFTS, STATES, Deployment, Group, Step
from gdn_aot.providers.workload import Call, Workload, there
from gdn_aot.reference import formulas as reference

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.providers.draw import Draw
    from gdn_aot.reference import Tensors

__all__ = ["ARGUMENTS", "RELAXATIONS", "WORKLOADS", "lacks"]

DEPLOYMENTS = tuple(Deployment(state=state, drafts=drafts) for state in STATES for drafts in DRAFTS)
"""The checkpoint that says nothing first."""

POOL = 1 << 30
"""Most bytes of states and windows in the pool of a step that warms a process up; steps that need more are not made.

What is left out are the largest batches: at TP 1 of a model with 32 value heads more than 64 decoding requests.
"""

_CASES = {
    "prefill": sglang_steps.prefill,
    "decode": sglang_steps.decode,
    "mixed": sglang_steps.mixed,
    "speculative": sglang_steps.speculative,
}


def lacks(shape: ModelShape) -> str:
    """Return why this version of SGLang cannot be traced for a model, or nothing."""
    return sglang_versions.lacks(shape.layer)


class Steps(Workload):
    """Steps of one kind of SGLang's scheduler."""

    def __init__(self, kind: str) -> None:
        self.name = kind
        self.kind = "chunk" if kind in ("prefill", "mixed") else "layer"

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every pattern of requests and every class of lengths, in every deployment."""
        del limits
        for deployment in DEPLOYMENTS:
            yield from (step.call(self.name) for step in self._laid_out(shape, deployment))

    def _laid_out(self, shape: ModelShape, deployment: Deployment) -> Iterator[Step]:
        """Yield those of one deployment."""
        layouts, shifts = sglang_layer.layouts(shape), sglang_layer.shifts(shape)
        yield from dict.fromkeys(
            replace(step, merged=merged)
            for step in self._steps(shape, deployment)
            for merged in (layouts if shifts else layouts[1:] if step.merged else layouts[:1])
        )

    def _steps(self, shape: ModelShape, deployment: Deployment) -> Iterator[Step]:
        if shape.family == KDA and self.name == "prefill":
            return sglang_steps.kda_prefill(deployment, shape.heads, graphs=sglang_layer.captures(shape))
        return _CASES[self.name](deployment)

    def warm(self, shape: ModelShape, tokens: int = 0) -> Iterator[Call]:
        """Yield the steps of this kind in the deployment that the checkpoint asks for, and a prompt of ``tokens``.

        Each has a pool with room for all that kernels write on a GPU, of at most `POOL` bytes. The largest come first:
        what memory PyTorch keeps of one has room for the next.
        """
        deployment = Deployment(state=STATES[0], drafts=DRAFTS[-1] if self.name == "speculative" else 0)
        most = POOL // sglang_layer.row_bytes(shape, deployment)
        steps = map(sglang_steps.with_room, self._laid_out(shape, deployment))
        for step in sorted(steps, key=lambda step: step.rows, reverse=True):
            if step.rows <= most:
                yield step.call(self.name)
        if self.name == "prefill" and tokens > 1:
            yield Step(kind="extend", groups=(Group(1, 0, tokens),), deployment=deployment).call(self.name)

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a random step."""
        named: dict[str, Any] = {
            "most_merged": sglang_layer.most_merged(shape),
            "graphs": sglang_layer.captures(shape),
        }
        step = sglang_steps.random_step(rng, DEPLOYMENTS, self.name, limits, **named)
        others = sglang_layer.layouts(shape)[1:]
        return (replace(step, merged=rng.choice(others)) if step.merged else step).call(self.name)

    def tune(self, shape: ModelShape, tokens: int, limits: Limits) -> Iterator[Call]:
        """Yield prompts of ``tokens`` tokens, one and two. Nothing else is autotuned."""
        del shape
        if self.name != "prefill" or not 1 < tokens <= limits.max_tokens:
            return
        parts = tuple(Group(1, 0, part) for part in traffic.uneven(tokens, sglang_steps.CHUNK))
        for groups in ((Group(1, 0, tokens),), parts):
            yield Step(kind="extend", groups=groups, deployment=DEPLOYMENTS[0]).call(self.name)

    def inputs(self, shape: ModelShape, call: Call, draw: Draw) -> Tensors:
        """Draw projections, parameters and the states of the requests."""
        return sglang_layer.inputs(shape, Step.of(call), draw)

    def apply(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Run the layer. Returns ``out``, and windows and states as `sglang_layer.apply` does."""
        step = Step.of(call)
        made = sglang_layer.apply(shape, step, inputs)
        return {**made, "out": there(made, "out")[:, : step.tokens]}

    def expect(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Return the same in float64, rounded where tensors are between the layer's kernels."""
        return sglang_reference.expect(shape, Step.of(call), inputs)

    def run(self, shape: ModelShape, call: Call) -> None:
        """Run the layer on tensors without content."""
        with contentless():
            sglang_layer.apply(shape, Step.of(call), self.inputs(shape, call, EMPTY))


class GatedRMSNorm(Workload):
    """The layer's norm, on whatever card; not autotuned."""

    name, kind = "gated-norm", "norm"

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every number of rows in a block and every class of the row count, with each gate and kind of graph."""
        del limits
        for piecewise, gate in itertools.product(sglang_gdn.PIECEWISE, sglang_gdn.gates(shape)):
            for tokens, sm_count in norm_rows(shape.v_heads):
                yield Call.of(self.name, tokens=tokens, sm_count=sm_count, piecewise=piecewise, gate=gate)

    def warm(self, shape: ModelShape, tokens: int = 0) -> Iterator[Call]:
        """Yield nothing: the layer makes these calls."""
        del shape, tokens
        return iter(())

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a call of random length, on some card."""
        return Call.of(
            self.name,
            tokens=traffic.random_length(rng, limits.max_tokens),
            sm_count=rng.choice(list(SM_COUNTS)),
            piecewise=rng.choice(sglang_gdn.PIECEWISE),
            gate=rng.choice(sglang_gdn.gates(shape)),
        )

    def inputs(self, shape: ModelShape, call: Call, draw: Draw) -> Tensors:
        """Draw the layer's output, the gate, where it is a part of the projections these, and the weight."""
        args: dict[str, Any] = dict(call.arguments)
        dtype, width = sglang_versions.DTYPES[shape.dtype], sglang_gdn.gate_width(shape, args["gate"])
        return {
            "x": draw.normal(1, args["tokens"], shape.v_heads, shape.v_dim, dtype=dtype),
            "g": draw.normal(1, args["tokens"], width, dtype=dtype),
            "norm_weight": draw.weight(shape.v_dim, dtype=dtype),
        }

    def apply(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Call the norm as the layer does, on a card with so many SMs. Returns ``out``."""
        args: dict[str, Any] = dict(call.arguments)
        x, projected, weight = (there(inputs, name) for name in ("x", "g", "norm_weight"))
        counted = mock.patch.object(sglang_versions.gated, "_get_sm_count", return_value=args["sm_count"])
        made = sglang_gdn.norm(shape, weight, piecewise=args["piecewise"])
        gate = sglang_gdn.gate(shape, args["gate"], projected[0])
        with on_target(), counted, made as norm, torch.no_grad():
            return {"out": norm(x.flatten(0, 2).clone(), gate).view(x.shape)}  # some norms write into what they get

    def run(self, shape: ModelShape, call: Call) -> None:
        """Call the norm on tensors without content."""
        with contentless():
            super().run(shape, call)

    def expect(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Return the gated norm."""
        x, projected, weight = (there(inputs, name) for name in ("x", "g", "norm_weight"))
        kind: Any = dict(call.arguments)["gate"]
        gate = sglang_gdn.gate(shape, kind, projected[0]).reshape(x.shape)
        return {"out": reference.gated_norm(x, gate, weight, shape.norm_eps, shape.norm_activation)}


WORKLOADS: dict[str, Callable[[], Workload]] = {
    **{kind: partial(Steps, kind) for kind in _CASES},
    "gated-norm": GatedRMSNorm,
}
