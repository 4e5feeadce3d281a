"""Provider ``vllm``: the layers of vLLM with a gated delta rule, run on steps of its scheduler.

Importing this module imports vLLM: do it under the stub driver.
"""
# ruff: noqa: E402 - vLLM is prepared for before it is imported

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from gdn_aot.providers.vllm.platform import prepare

prepare()

from vllm.model_executor.layers.layernorm import RMSNormGated

from gdn_aot.catalogue.models import GDN, KDA
from gdn_aot.errors import DeploymentError
from gdn_aot.providers import traffic
from gdn_aot.providers.contentless import contentless
from gdn_aot.providers.draw import EMPTY
from gdn_aot.providers.layer_names import GLM, K3
from gdn_aot.providers.norm_rows import SM_COUNTS, norm_rows
from gdn_aot.providers.vllm import cache as vllm_cache
from gdn_aot.providers.vllm import kda as vllm_kda
from gdn_aot.providers.vllm import kimi_k3
from gdn_aot.providers.vllm import layer as vllm_layer
from gdn_aot.providers.vllm import packed as vllm_packed
from gdn_aot.providers.vllm import reference as vllm_reference
from gdn_aot.providers.vllm import steps as vllm_steps
from gdn_aot.providers.vllm import versions as vllm_versions
from gdn_aot.providers.vllm.inspection import place
from gdn_aot.providers.vllm.relaxations import RELAXATIONS
from gdn_aot.providers.vllm.steps import Group, Step
from gdn_aot.providers.vllm.whole import HINT, RELEASES
from gdn_aot.providers.workload import Call, Workload, there
from gdn_aot.reference import formulas as reference

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.deployment import Deployment
    from gdn_aot.providers.draw import Draw
    from gdn_aot.providers.workload import Deployed
    from gdn_aot.reference import Tensors

try:
    from vllm.model_executor.layers.fla.ops.layernorm_guard import rmsnorm_fn
except ModuleNotFoundError:  # from 0.26 on
    from vllm.third_party.flash_linear_attention.ops.layernorm_guard import rmsnorm_fn

__all__ = ["RELAXATIONS", "WORKLOADS", "deployed", "lacks", "place"]

_GUARD = inspect.getmodule(inspect.unwrap(rmsnorm_fn))
"""The module that asks for the SM count."""


def lacks(shape: ModelShape) -> str:
    """Return why this version of vLLM cannot be traced for a model, or nothing."""
    missing = vllm_versions.lacks(shape.layer) or (vllm_packed.lacks() if shape.layer == GLM else "")
    if not missing and not shape.kv_heads:
        missing = "the catalogue has no attention layers of it, on which its cache depends"
    if not missing and shape.family == KDA and (unknown := vllm_kda.unknown(shape)):
        missing = f"this version of vLLM has another layer for it than is known here: it reads {', '.join(unknown)}"
    return missing


CHUNK = 64
"""Tokens of a chunk of the prefill kernels."""

_CASES = {
    "prefill": vllm_steps.prefill,
    "decode": vllm_steps.decode,
    "mixed": vllm_steps.mixed,
    "speculative": vllm_steps.speculative,
}
_KDA_CASES = {
    "prefill": vllm_steps.prefill,
    "decode": vllm_steps.kda_decode,
    "mixed": vllm_steps.kda_mixed,
    "speculative": vllm_steps.kda_speculative,
}
"""The same of layers of Kimi Delta Attention."""


def _layer(shape: ModelShape) -> Any:
    """Return the module that runs the layer of a model."""
    return vllm_kda if shape.family == KDA else vllm_layer


class Steps(Workload):
    """Steps of one kind of vLLM's scheduler."""

    def __init__(self, kind: str) -> None:
        self.name = kind
        self.kind = "layer" if kind == "decode" else "chunk"

    def applies(self, shape: ModelShape) -> bool:
        """Say whether the model's layer takes such steps."""
        return self.name != "speculative" or vllm_versions.takes_drafts(shape.layer)

    def _steps(self, shape: ModelShape, deployment: vllm_steps.Deployment) -> Iterator[Step]:
        """Yield those that together cause every launch, in one deployment."""
        cases = _CASES if shape.family == GDN else _KDA_CASES
        yield from cases[self.name](deployment)
        if self.name == "prefill" and vllm_layer.FIRST_TOKENS:
            yield from vllm_steps.first_tokens(deployment)
        if shape.layer == K3:
            yield from vllm_steps.kimi_k3(deployment, self.name)

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every pattern of requests, classes of lengths and alignments, in every deployment."""
        del limits
        for deployment in vllm_cache.deployments(shape):
            if deployment.fused and self.name != "speculative":
                continue  # all steps but those of drafts are as they are without, and then the norm
            for step in self._steps(shape, deployment):
                yield step.call(self.name)

    def warm(self, shape: ModelShape, tokens: int = 0) -> Iterator[Call]:
        """Yield the steps of this kind in the deployment that the checkpoint asks for, and a prompt of ``tokens``."""
        deployment = vllm_cache.deployments(shape)[0]
        for step in self._steps(shape, deployment):
            yield step.call(self.name)
        if self.name == "prefill" and tokens > 1:
            yield Step(groups=(Group(1, 0, tokens),), deployment=deployment).call(self.name)

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a random step."""
        made = vllm_cache.deployments(shape)
        step = vllm_steps.random_step(rng, made, self.name, limits, first_tokens=vllm_layer.FIRST_TOKENS)
        if shape.layer == K3 and traffic.chance(rng, 0.5):
            step = vllm_steps.few_or_apart(rng, step)
        return step.call(self.name)

    def tune(self, shape: ModelShape, tokens: int, limits: Limits) -> Iterator[Call]:
        """Yield prompts of ``tokens`` tokens, one and two, with every dtype of the state. Nothing else is autotuned.

        Of Kimi Delta Attention, the gate of a decode step is: its batch is ``tokens``, or the largest that is near.
        """
        batch = min(tokens, limits.max_tokens, vllm_steps.DECODE_BATCH)
        if self.name == "decode" and shape.family == KDA and tokens < 4 * batch:
            yield Step(groups=(Group(batch, 100, 1),), deployment=vllm_cache.deployments(shape)[0]).call(self.name)
        if self.name != "prefill" or not 1 < tokens <= limits.max_tokens:
            return
        deployments = vllm_cache.deployments(shape)
        for deployment in deployments:
            if not deployment.drafts and deployment.aligned == deployments[0].aligned:
                parts = tuple(Group(1, 0, part) for part in traffic.uneven(tokens, CHUNK))
                for groups in ((Group(1, 0, tokens),), parts):
                    yield Step(groups=groups, deployment=deployment).call(self.name)

    def inputs(self, shape: ModelShape, call: Call, draw: Draw) -> Tensors:
        """Draw projections, parameters and the states of the requests."""
        made: Tensors = _layer(shape).inputs(shape, Step.of(call), draw)
        return made

    def apply(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Run the layer. Returns ``out``, and the window and the state that each request ends with."""
        step = Step.of(call)
        out, (windows, states) = _layer(shape).apply(shape, step, inputs)
        return vllm_reference.results(step, out, windows, states)

    def expect(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Return the same in float64, rounded where tensors are between the layer's kernels."""
        step = Step.of(call)
        windows, states = vllm_layer.states(shape, step, inputs)
        return vllm_reference.expect(shape, step, inputs, windows, states)

    def run(self, shape: ModelShape, call: Call) -> None:
        """Run the layer on tensors without content."""
        with contentless():
            _layer(shape).apply(shape, Step.of(call), self.inputs(shape, call, EMPTY))


class GatedRMSNorm(Workload):
    """The gated norm on the output of a layer, as it is where Inductor does not take its place. Not autotuned."""

    name, kind = "gated-norm", "norm"

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every number of rows in a block, on whatever card, and every class of the row count."""
        del limits
        few = ((3, 1), (4, 1)) if shape.layer == K3 else ()  # as many as a captured graph has
        for tokens, sm_count in (*norm_rows(shape.v_heads), *few):
            yield Call.of(self.name, tokens=tokens, sm_count=sm_count)

    def warm(self, shape: ModelShape, tokens: int = 0) -> Iterator[Call]:
        """Yield nothing: a start of vLLM makes these calls itself if it makes any."""
        del shape, tokens
        return iter(())

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a call of random length, on some card; of Kimi-K3, whose norm is in its step, as long as that."""
        most = min(limits.max_tokens, vllm_steps.BUDGET) if shape.layer == K3 else limits.max_tokens
        return Call.of(
            self.name,
            tokens=traffic.random_length(rng, most),
            sm_count=rng.choice(list(SM_COUNTS)),
        )

    def inputs(self, shape: ModelShape, call: Call, draw: Draw) -> Tensors:
        """Draw the layer's output, the gate and the weight."""
        args: dict[str, Any] = dict(call.arguments)
        size, dtype = (1, args["tokens"], shape.v_heads, shape.v_dim), vllm_cache.DTYPES[shape.dtype]
        own = kimi_k3.gate_rows(shape, args["tokens"])[0]
        return {
            "x": draw.normal(*size, dtype=dtype),
            "g": _gate(shape, draw.normal(1, args["tokens"], own, dtype=dtype)),
            "norm_weight": draw.weight(shape.v_dim, dtype=dtype),
        }

    def apply(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Call the norm as the layer does, on a card with so many SMs. Returns ``out``."""
        sm_count: Any = dict(call.arguments)["sm_count"]
        x, gate, weight = (there(inputs, name) for name in ("x", "g", "norm_weight"))
        norm = _norm(shape)
        norm.weight = torch.nn.Parameter(weight, requires_grad=False)
        # That of KDA works in place, and takes from the gate how many heads a token has.
        given = (x.clone(), gate[0]) if shape.family == KDA else (x.flatten(0, 2), gate.flatten(0, 2))
        with torch.no_grad(), mock.patch.object(_GUARD, "num_compute_units", return_value=sm_count):
            return {"out": norm.forward_cuda(*given).view(x.shape)}

    def expect(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Return the gated norm."""
        del call
        x, gate, weight = (there(inputs, name) for name in ("x", "g", "norm_weight"))
        return {"out": reference.gated_norm(x, gate, weight, _norm(shape).eps, shape.norm_activation)}

    def run(self, shape: ModelShape, call: Call) -> None:
        """Call the norm on tensors without content, with the gate as each way to project it leaves it."""
        with contentless():
            made = self.inputs(shape, call, EMPTY)
            for own in kimi_k3.gate_rows(shape, there(made, "x").shape[1]):
                rows = there(made, "x").new_empty(1, there(made, "x").shape[1], own)
                self.apply(shape, call, {**made, "g": _gate(shape, rows)})


def _gate(shape: ModelShape, rows: torch.Tensor) -> torch.Tensor:
    """Return the gate of the norm in rows that may have more."""
    return rows[..., : shape.v_heads * shape.v_dim].unflatten(-1, (shape.v_heads, shape.v_dim))


@cache
def _norm(shape: ModelShape) -> Any:
    """Return the layer's norm without its weight, made without the configuration that its constructor asks for."""
    if shape.family == KDA:
        return vllm_kda.make_norm(shape)
    norm = RMSNormGated.__new__(RMSNormGated)
    torch.nn.Module.__init__(norm)
    norm.eps, norm.activation = shape.norm_eps, shape.norm_activation
    norm.group_size, norm.norm_before_gate = None, True
    norm.register_parameter("bias", None)
    return norm


WORKLOADS: dict[str, Callable[[], Workload]] = {
    **{kind: partial(Steps, kind) for kind in _CASES},
    "gated-norm": GatedRMSNorm,
}


@contextlib.contextmanager
def deployed(deployment: Deployment) -> Iterator[Deployed]:
    """Make vLLM's engine for a deployment; see `gdn_aot.providers.vllm.whole.engine.engine`.

    Raises:
        DeploymentError: The installed release is not one of `RELEASES`, or as there.
    """
    installed = importlib.metadata.version("vllm").partition("+")[0]
    if installed not in RELEASES:
        what = f"kernels of a deployment are enumerated for vLLM {', '.join(RELEASES)}, not for {installed}"
        raise DeploymentError(what, hint=HINT)
    from gdn_aot.providers.vllm.whole import engine
    from gdn_aot.providers.vllm.whole.calls import Calls

    with engine.engine(deployment) as made:
        yield Calls(made)
