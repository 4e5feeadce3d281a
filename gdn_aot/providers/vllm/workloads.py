"""Provider ``vllm``: the Gated Delta Net layers of vLLM, run on steps of its scheduler.

Importing this module imports vLLM: do it under the stub driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gdn_aot.providers.vllm.platform import prepare

prepare()

from gdn_aot.providers import traffic  # noqa: E402
from gdn_aot.providers.draw import EMPTY  # noqa: E402
from gdn_aot.providers.vllm import cache as vllm_cache  # noqa: E402
from gdn_aot.providers.vllm import layer as vllm_layer  # noqa: E402
from gdn_aot.providers.vllm import reference as vllm_reference  # noqa: E402
from gdn_aot.providers.vllm import steps as vllm_steps  # noqa: E402
from gdn_aot.providers.vllm.contentless import contentless  # noqa: E402
from gdn_aot.providers.vllm.norm import GatedRMSNorm  # noqa: E402
from gdn_aot.providers.vllm.relaxations import RELAXATIONS  # noqa: E402
from gdn_aot.providers.vllm.steps import Group, Step  # noqa: E402
from gdn_aot.providers.workload import Workload  # noqa: E402

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.providers.draw import Draw
    from gdn_aot.providers.workload import Call
    from gdn_aot.reference import Tensors

__all__ = ["RELAXATIONS", "WORKLOADS"]

CHUNK = 64
"""Tokens of a chunk of the prefill kernels."""

_CASES = {
    "prefill": vllm_steps.prefill,
    "decode": vllm_steps.decode,
    "mixed": vllm_steps.mixed,
    "speculative": vllm_steps.speculative,
}


class Steps(Workload):
    """Steps of one kind of vLLM's scheduler."""

    def __init__(self, kind: str) -> None:
        self.name = kind
        self.kind = "layer" if kind == "decode" else "chunk"

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every pattern of requests, classes of lengths and alignments, in every deployment."""
        del limits
        for deployment in vllm_cache.deployments(shape):
            if deployment.fused and self.name != "speculative":
                continue  # all steps but those of drafts are as they are without, and then the norm
            for step in _CASES[self.name](deployment):
                yield step.call(self.name)

    def warm(self, shape: ModelShape, tokens: int = 0) -> Iterator[Call]:
        """Yield the steps of this kind in the deployment that the checkpoint asks for, and a prompt of ``tokens``."""
        deployment = vllm_cache.deployments(shape)[0]
        for step in _CASES[self.name](deployment):
            yield step.call(self.name)
        if self.name == "prefill" and tokens > 1:
            yield Step(groups=(Group(1, 0, tokens),), deployment=deployment).call(self.name)

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a random step."""
        return vllm_steps.random_step(rng, vllm_cache.deployments(shape), self.name, limits).call(self.name)

    def tune(self, shape: ModelShape, tokens: int, limits: Limits) -> Iterator[Call]:
        """Yield prompts of ``tokens`` tokens, one and two, with every dtype of the state. Nothing else is autotuned."""
        if self.name != "prefill" or not 1 < tokens <= limits.max_tokens:
            return
        for deployment in vllm_cache.deployments(shape):
            if not deployment.drafts and deployment.aligned == 1:
                parts = tuple(Group(1, 0, part) for part in traffic.uneven(tokens, CHUNK))
                for groups in ((Group(1, 0, tokens),), parts):
                    yield Step(groups=groups, deployment=deployment).call(self.name)

    def inputs(self, shape: ModelShape, call: Call, draw: Draw) -> Tensors:
        """Draw projections, parameters and the states of the requests."""
        return vllm_layer.inputs(shape, Step.of(call), draw)

    def apply(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Run the layer. Returns ``out``, and the window and the state that each request ends with."""
        step = Step.of(call)
        out, (windows, states) = vllm_layer.apply(shape, step, inputs)
        return vllm_reference.results(step, out, windows, states)

    def expect(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Return the same in float64, rounded where tensors are between the layer's kernels."""
        step = Step.of(call)
        windows, states = vllm_layer.states(shape, step, inputs)
        return vllm_reference.expect(shape, step, inputs, windows, states)

    def run(self, shape: ModelShape, call: Call) -> None:
        """Run the layer on tensors without content."""
        with contentless():
            vllm_layer.apply(shape, Step.of(call), self.inputs(shape, call, EMPTY))


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "prefill": lambda: Steps("prefill"),
    "decode": lambda: Steps("decode"),
    "mixed": lambda: Steps("mixed"),
    "speculative": lambda: Steps("speculative"),
    "gated-norm": lambda: GatedRMSNorm("gated-norm"),
}
