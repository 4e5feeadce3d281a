"""How FLA's operators of GDN and KDA are called: the tensors and flags of a call, and what comes of it in float64.

Two callers were read, in their sources: the model code of transformers 5.0 to 5.24 (``modeling_qwen3_next.py``,
``modeling_qwen3_5.py``, ``modeling_olmo_hybrid.py``) and FLA's own layer (``fla/layers/gated_deltanet.py``). `kda` says
what is otherwise with KDA.
Importing this module imports fla: do it under the stub driver.
"""

from __future__ import annotations

import inspect
import math
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from fla.ops.gated_delta_rule import chunk_gated_delta_rule

from gdn_aot.providers.fla import stand_in
from gdn_aot.providers.fla.modules import DTYPES, cu_seqlens
from gdn_aot.providers.gradients import exactly, through
from gdn_aot.providers.workload import Workload, there
from gdn_aot.reference import GRADIENT
from gdn_aot.reference import formulas as reference
from gdn_aot.triton_internals import stands_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.providers.draw import Draw
    from gdn_aot.providers.workload import Call
    from gdn_aot.reference import Tensors

if stands_in():
    stand_in.answer_for_tensors_on_no_device()

DEFAULT_CHUNK = 64
"""What ``chunk_gated_delta_rule`` takes when nothing is said."""


@cache
def source_mentions(function: Callable[..., Any], word: str) -> bool:
    """Say whether a word is in the text of a function, as a flag that a release has."""
    return word in inspect.getsource(inspect.unwrap(function))


STATE_FLAG = "state_v_first" if source_mentions(chunk_gated_delta_rule, "state_v_first") else "transpose_state_layout"
GATE_IN_KERNEL = source_mentions(chunk_gated_delta_rule, "use_gate_in_kernel")
BETA_SIGMOID = source_mentions(chunk_gated_delta_rule, "use_beta_sigmoid_in_kernel")
GROUPED_VALUES = source_mentions(chunk_gated_delta_rule, "GVA")
CHUNK_SIZES: tuple[int, ...] = (64, 16, 32) if source_mentions(chunk_gated_delta_rule, "chunk_size not in") else (64,)


UNUSUAL = ("gate", "beta", "state", "scale")
"""What a call may have otherwise than transformers: the gate, or the state, in the model's type instead of float32,
beta in float32 instead of the model's type, an integer 1 as the scale."""


def unusual(shape: ModelShape) -> tuple[str, ...]:
    """Return those of `UNUSUAL` that a kernel can tell from the usual: in a float32 model, all types are one."""
    return ("scale",) if shape.dtype == "fp32" else UNUSUAL


def key_heads(shape: ModelShape, *, repeated: bool) -> int:
    """Return the heads that queries and keys have when the operator gets them."""
    return shape.v_heads if repeated or not GROUPED_VALUES else shape.heads


def head_forms(shape: ModelShape) -> tuple[bool, ...]:
    """Return whether key heads come as they are, repeated to the value heads (transformers before 5.23), or either."""
    return (False, True) if key_heads(shape, repeated=False) != shape.v_heads else (False,)


class Operator(Workload):
    """One of the operators in one caller's way; what differs with KDA is a method of its own."""

    layer: bool
    """Called as FLA's layer does (gate and beta sigmoid in the kernel, state V first) or as transformers does."""
    backward = False
    operator: Callable[..., Any]
    """The provider's function."""

    def _lengths(self, args: dict[str, Any]) -> tuple[int, ...] | None:
        """Return the lengths of packed sequences, or None for a dense batch."""
        raise NotImplementedError

    @property
    def raw_gate(self) -> bool:
        """Whether the kernel makes the decay of raw gates, ``A_log`` and ``dt_bias``."""
        return self.layer and GATE_IN_KERNEL

    @property
    def raw_beta(self) -> bool:
        """Whether the kernel makes beta a sigmoid."""
        return self.layer and BETA_SIGMOID

    def unusual(self, shape: ModelShape) -> tuple[str, ...]:
        """Return what calls may have otherwise than transformers."""
        return unusual(shape)

    def decay_size(self, shape: ModelShape) -> tuple[int, ...]:
        """Return the sizes of the gate of one token."""
        return (shape.v_heads,)

    def draw_decay(self, shape: ModelShape, draw: Draw, *size: int, dtype: torch.dtype, grad: bool) -> torch.Tensor:
        """Return logarithms of decays."""
        del shape
        return draw.log_decay(*size, grad=grad).to(dtype)

    def inputs(self, shape: ModelShape, call: Call, draw: Draw) -> Tensors:
        """Draw queries, keys, values, gates, and what else the call has: state, parameters, ends of sequences."""
        args: dict[str, Any] = dict(call.arguments)
        lengths = self._lengths(args)
        batch, tokens = (1, sum(lengths)) if lengths else (args["batch"], args["tokens"])
        dtype, grad = DTYPES[shape.dtype], self.backward
        heads, other = key_heads(shape, repeated=args["repeated"]), args["other"]
        vectors = draw.normal if args.get("l2norm", True) else draw.unit
        made: Tensors = {
            "q": vectors(batch, tokens, heads, shape.k_dim, dtype=dtype, grad=grad),
            "k": vectors(batch, tokens, heads, shape.k_dim, dtype=dtype, grad=grad),
            "v": draw.normal(batch, tokens, shape.v_heads, shape.v_dim, dtype=dtype, grad=grad),
        }
        size = (batch, tokens, shape.v_heads)
        if self.raw_gate:
            made["g"] = draw.normal(batch, tokens, *self.decay_size(shape), dtype=dtype, grad=grad)
        else:
            kind = dtype if "gate" in other else torch.float32
            made["g"] = self.draw_decay(shape, draw, batch, tokens, *self.decay_size(shape), dtype=kind, grad=grad)
        if self.raw_beta:
            made["beta"] = draw.normal(*size, dtype=dtype, grad=grad)
        else:
            kind = torch.float32 if "beta" in other else dtype
            made["beta"] = draw.sigmoid(*size, dtype=kind, scale=_beta_scale(shape), grad=grad)
        dims = (shape.v_dim, shape.k_dim) if self.layer else (shape.k_dim, shape.v_dim)
        sequences = len(lengths) if lengths else batch
        made["initial_state"] = (
            draw.normal(sequences, shape.v_heads, *dims, dtype=dtype if "state" in other else torch.float32, grad=grad)
            if args["h0"]
            else None
        )
        made["cu_seqlens"] = cu_seqlens(lengths, args["index"]) if lengths else None
        if self.raw_gate:
            parameters = DTYPES[args["parameters"]]
            a_log = draw.log_a(shape.v_heads, parameters, bounded=shape.gate_bound < 0)
            made["A_log"] = a_log.requires_grad_(grad)
            made["dt_bias"] = draw.dt_bias(math.prod(self.decay_size(shape)), parameters).requires_grad_(grad)
        if grad:
            made[f"{GRADIENT}out"] = draw.normal(batch, tokens, shape.v_heads, shape.v_dim, dtype=dtype)
        if grad and args["ht"]:
            made[f"{GRADIENT}state"] = draw.normal(sequences, shape.v_heads, *dims, dtype=torch.float32)
        return made

    def _flags(self, shape: ModelShape, args: dict[str, Any]) -> dict[str, Any]:
        flags: dict[str, Any] = {}
        if self.layer:
            flags[STATE_FLAG] = True
        if self.raw_beta:
            flags["use_beta_sigmoid_in_kernel"] = True
            flags["allow_neg_eigval"] = shape.allow_neg_eigval
        if self.raw_gate:
            flags["use_gate_in_kernel"] = True
        if args.get("chunk", DEFAULT_CHUNK) != DEFAULT_CHUNK:
            flags["chunk_size"] = args["chunk"]
        if "scale" in args["other"]:
            flags["scale"] = 1
        return flags

    def apply(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Call the operator. Returns ``out``, ``state`` if one came back, and for training the gradients of inputs."""
        args: dict[str, Any] = dict(call.arguments)

        def forwards(inputs: Tensors) -> Tensors:
            out, final = self.operator(
                **inputs,
                output_final_state=args["ht"],
                use_qk_l2norm_in_kernel=args.get("l2norm", True),
                **self._flags(shape, args),
            )
            return {"out": out, **({} if final is None else {"state": final})}

        return through(forwards, inputs)

    def expect(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Return the delta rule of the same inputs, with the gates that the kernel makes of raw ones."""
        return exactly(partial(self._exact, shape, dict(call.arguments)), inputs)

    def _exact(self, shape: ModelShape, args: dict[str, Any], inputs: Tensors) -> Tensors:
        q, k, v, g, beta = (there(inputs, name) for name in ("q", "k", "v", "g", "beta"))
        if args.get("l2norm", True):
            q, k = reference.normalized(q), reference.normalized(k)
        if "scale" in args["other"]:  # 1 instead of the reference's
            q = q * shape.k_dim**0.5
        if inputs.get("A_log") is not None:
            g = reference.gate(g, there(inputs, "A_log"), there(inputs, "dt_bias"), shape.gate_bound)
        if self.raw_beta:
            beta = beta.sigmoid() * _beta_scale(shape)
        initial = inputs["initial_state"]
        if initial is not None and self.layer:
            initial = initial.mT
        out, state = reference.delta_rule(q, k, v, g, beta, initial, self._lengths(args))
        return {"out": out, **({"state": state.mT if self.layer else state} if args["ht"] else {})}

    def parameter_dtypes(self, shape: ModelShape) -> tuple[str, ...]:
        """Return dtypes of ``A_log``: float32 as created, the model's after ``model.to(dtype)``."""
        return ("fp32", shape.dtype) if self.raw_gate else ("fp32",)


def _beta_scale(shape: ModelShape) -> float:
    """Return the factor on beta's sigmoid: models with negative eigenvalues double it."""
    return 2.0 if shape.allow_neg_eigval else 1.0
