"""The layers with a gated delta rule of a deployment whose pages or drafts are its own.

Workloads of the provider run such layers on the pages that vLLM makes by default, with up to three drafts. Here they
run on the pages that the engine made: every class of step that is known, and in each step of the engine the engine's
own layer with the metadata of that step.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.kv_cache_interface import MambaSpec

from gdn_aot.catalogue.models import GDN, find_model
from gdn_aot.catalogue.providers import Limits
from gdn_aot.errors import DeploymentError
from gdn_aot.providers.contentless import contentless
from gdn_aot.providers.draw import EMPTY
from gdn_aot.providers.vllm import layer as vllm_layer
from gdn_aot.providers.vllm import steps as vllm_steps
from gdn_aot.providers.vllm import versions as vllm_versions
from gdn_aot.providers.vllm.cache import DTYPES, Made, deployments, page_size, state_dtypes, state_shapes
from gdn_aot.providers.vllm.whole import refused

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.providers.vllm.whole.engine import Engine

_KINDS = ("prefill", "decode", "mixed", "speculative")


class Layers:
    """The layers of one kind of an engine, in steps."""

    def __init__(self, engine: Engine, shape: ModelShape) -> None:
        config = engine.config
        self._shape = shape
        drafts = config.speculative_config
        if not hasattr(_layer(engine), "chunk_gated_delta_rule"):
            raise refused(f"drafts or pages of its own of {shape.name}")
        self._deployment = Made(
            state=config.cache_config.mamba_ssm_cache_dtype,
            drafts=drafts.num_speculative_tokens if drafts else 0,
            made=_spec(engine),
        )
        scheduler = config.scheduler_config
        self._limits = Limits(max_tokens=scheduler.max_num_batched_tokens, max_batch=scheduler.max_num_seqs)
        engine.runner.model.inner = partial(self._in_step, _alone(_layer(engine)))

    def calls(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield steps of every class."""
        for kind in _KINDS:
            for step in getattr(vllm_steps, kind)(self._deployment):
                yield _named(step), partial(self._run, step)

    def sample(self, rng: random.Random) -> tuple[str, Callable[[], object]]:
        """Return a random step."""
        kinds = _KINDS if self._deployment.drafts else _KINDS[:-1]
        made, kind = [self._deployment], rng.choice(kinds)
        step = vllm_steps.random_step(rng, made, kind, self._limits, first_tokens=vllm_layer.FIRST_TOKENS)
        return _named(step), partial(self._run, step)

    def _run(self, step: vllm_steps.Step) -> None:
        with contentless():
            vllm_layer.apply(self._shape, step, vllm_layer.inputs(self._shape, step, EMPTY))

    def _in_step(self, alone: Any, tokens: int) -> None:
        shape = self._shape
        dtype, heads = DTYPES[shape.dtype], shape.v_heads
        with contentless():
            width = 2 * shape.heads * shape.k_dim + 2 * heads * shape.v_dim
            vllm_layer.project(
                alone, shape, torch.empty(tokens, width, dtype=dtype), torch.empty(tokens, 2 * heads, dtype=dtype)
            )
            hidden = torch.empty(tokens, 1, dtype=dtype)
            vllm_versions.forward(alone, shape.layer, hidden, torch.empty(tokens, heads * shape.v_dim, dtype=dtype))


def _named(step: vllm_steps.Step) -> str:
    return f"gated delta rule({[tuple(group) for group in step.groups]}, graph={step.graph}, compiled={step.compiled})"


def is_known(engine: Engine, shape: ModelShape) -> bool:
    """Say whether the pages and states of an engine without drafts are among those of the provider's workloads."""
    spec = _spec(engine)
    here = int(spec.page_size_bytes), *map(tuple, (spec.shapes, spec.dtypes))
    return any(
        here == (page_size(shape, one), state_shapes(shape, one), state_dtypes(shape, one))
        for one in deployments(shape)
        if not one.drafts
    )


def _spec(engine: Engine) -> MambaSpec:
    """Return what the engine made of its layers' states."""
    groups = [group for groups in engine.runner.attn_groups for group in groups]
    return next(group.kv_cache_spec for group in groups if isinstance(group.kv_cache_spec, MambaSpec))


def _layer(engine: Engine) -> Any:
    return next((module for module in engine.model.modules() if hasattr(module, "head_k_dim")), None)


def shape_of(engine: Engine) -> ModelShape:
    """Return the shape that the catalogue has of the deployment's model on a rank.

    Raises:
        DeploymentError: It is of another kind than is run here, or its ``config.json`` is of another model.
    """
    size, dtype = engine.config.parallel_config.tensor_parallel_size, str(engine.resolved["dtype"])
    shape = find_model(engine.name).shape(size, dtype)
    if shape.family != GDN:
        raise refused(f"Kimi Delta Attention, as {shape.name} has it,")
    layer = _layer(engine)
    if layer is None:
        raise refused(f"other layers than those of {shape.name}")
    here = (layer.num_k_heads // size, layer.num_v_heads // size, layer.head_k_dim, layer.head_v_dim)
    if here != (known := (shape.heads, shape.v_heads, shape.k_dim, shape.v_dim)):
        what = f"config: its layers have heads and dimensions {here} on a rank, and those of {shape.name} {known}"
        raise DeploymentError(what, hint="name the config.json of the same model")
    return shape


def _alone(layer: Any) -> Any:
    """Return an engine's layer without projections and norm; its core stays the engine's, on the engine's pages."""
    modules = layer.__dict__["_modules"]
    for name in [name for name in modules if name != "conv1d"]:
        del modules[name]
    layer.to_empty(device="cpu")
    alone = copy.copy(layer)
    layer.chunk_gated_delta_rule = partial(vllm_versions.CHUNKS.forward_native, None)
    alone.norm = alone.o_norm = lambda core, _gate: core  # no page is in it, so its workload has it
    alone.out_proj = alone.o_proj = lambda core: (core, None)
    return alone
