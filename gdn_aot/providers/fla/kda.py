"""Workloads of provider ``fla``: the operators of Kimi Delta Attention, and its gate.

Two callers were read, in their sources: the model code of transformers 5.17, 5.23 and 5.24
(``modeling_kimi_linear.py``, ``modeling_glm5_next.py``, and ``modeling_bailing_hybrid.py``, which 5.17 lacks) and
FLA's own layer (``fla/layers/kda.py`` of the distribution flash-linear-attention). Transformers makes the decay
itself, bounded or not, and hands it over in float32, or in the model's type for ``bailing_hybrid``: its calls do not
differ by the bound. The layer leaves the gate to the kernels, which have a way of their own for bounded ones.
Importing this module imports fla: do it under the stub driver.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from fla.ops.kda import chunk_kda, fused_recurrent_kda
from fla.ops.kda.gate import fused_kda_gate

from gdn_aot.providers import traffic
from gdn_aot.providers.fla.delta_rule import PLAIN, STATES, Prefill, Recurrent
from gdn_aot.providers.fla.modules import DTYPES, INDEX_DTYPES
from gdn_aot.providers.fla.operators import Operator, source_mentions, unusual
from gdn_aot.providers.gradients import exactly, through
from gdn_aot.providers.workload import Call, Workload, there
from gdn_aot.reference import GRADIENT
from gdn_aot.reference import formulas as reference

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.providers.draw import Draw
    from gdn_aot.reference import Tensors

_GATES: tuple[tuple[str, ...], ...] = ((), ("gate",))
"""What calls of transformers have otherwise than ``kimi_linear``: nothing, or the decay in the model's type."""


class _Kda(Operator):
    """One of the operators. Models known have as many value heads as key heads; heads come as they are."""

    @property
    def raw_gate(self) -> bool:
        """Whether the kernel makes the decay of raw gates, ``A_log`` and ``dt_bias``."""
        return self.layer

    @property
    def raw_beta(self) -> bool:
        """Whether the kernel makes beta a sigmoid."""
        return self.layer

    def decay_size(self, shape: ModelShape) -> tuple[int, ...]:
        """Return the sizes of the gate of one token: it has one for each channel of the keys."""
        return (shape.v_heads, shape.k_dim)

    def draw_decay(self, shape: ModelShape, draw: Draw, *size: int, dtype: torch.dtype, grad: bool) -> torch.Tensor:
        """Return logarithms of decays, bounded as the model's are."""
        return draw.log_decays(*size, bound=shape.gate_bound, dtype=dtype, grad=grad)

    def gates(self, shape: ModelShape) -> tuple[tuple[str, ...], ...]:
        """Return what is usual of the decay: its type, which is the model's or float32 where the kernels get it."""
        return _GATES[: 1 if self.layer or shape.dtype == "fp32" else 2]


class KdaPrefill(_Kda, Prefill):
    """``chunk_kda``: dense and packed prompts, with and without state. Its state is in float32 always."""

    operator = staticmethod(chunk_kda)

    def unusual(self, shape: ModelShape) -> tuple[str, ...]:
        """Return what calls may have otherwise than transformers."""
        return tuple(what for what in unusual(shape) if what != "state")

    def _forms(self, shape: ModelShape) -> tuple[bool, ...]:
        del shape
        return (False,)

    def _flags(self, shape: ModelShape, args: dict[str, Any]) -> dict[str, Any]:
        flags = super()._flags(shape, args)
        if self.layer:
            flags |= {"safe_gate": shape.gate_bound < 0, "lower_bound": shape.gate_bound or None}
        return flags

    def _patterns(self, shape: ModelShape, dense: int, packed: tuple[int, ...]) -> Iterator[Call]:
        yield from super()._patterns(shape, dense, packed)
        if not self.layer and not self.backward:  # some kernels see both, which is among the patterns above
            for what in self.unusual(shape):
                if what != "gate":
                    yield self._call(**{**PLAIN, "h0": True}, batch=1, tokens=dense, other=(what,))
        for other in self.gates(shape)[1:]:  # the cumulative sum alone sees it
            yield self._call(**PLAIN, batch=1, tokens=dense, other=other)
            for index in INDEX_DTYPES:
                yield self._call(**{**PLAIN, "packed": packed, "index": index}, batch=1, tokens=0, other=other)

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a random dense batch or pack, with one of the usual gates if nothing is unusual."""
        made = dict(super().sample(shape, limits, rng).arguments)
        if not made["other"]:
            made["other"] = rng.choice(self.gates(shape))
        return Call.of(self.name, **made)


class KdaRecurrent(_Kda, Recurrent):
    """``fused_recurrent_kda``: decode, and FLA's layer up to 64 tokens."""

    operator = staticmethod(fused_recurrent_kda)

    def _flags(self, shape: ModelShape, args: dict[str, Any]) -> dict[str, Any]:
        flags = super()._flags(shape, args)
        if self.layer:
            flags["lower_bound"] = shape.gate_bound or None
        return flags

    def _forms(self, shape: ModelShape) -> Iterator[dict[str, Any]]:
        for parameters in self.parameter_dtypes(shape):
            for h0, ht in STATES:
                for other in self.gates(shape):
                    yield {"h0": h0, "ht": ht, "parameters": parameters, "repeated": False, "other": other}
        if not self.layer:
            step: dict[str, Any] = {"h0": True, "ht": True, "parameters": "fp32", "repeated": False}
            usual = self.gates(shape)
            yield from ({**step, "other": (what,)} for what in self.unusual(shape) if (what,) not in usual)

    def _is_unusual(self, shape: ModelShape, form: dict[str, Any]) -> bool:
        return form.get("other", ()) not in self.gates(shape)


class KdaGate(Workload):
    """``fused_kda_gate``: the decay of raw gates by itself. No caller known does that with the operators here."""

    kind = "gate"

    def __init__(self, name: str, *, backward: bool = False) -> None:
        self.name, self.backward = name, backward

    def cases(self, shape: ModelShape, limits: Limits) -> Iterator[Call]:
        """Yield every type of the parameters; the number of tokens is in no key of this kernel."""
        for parameters in dict.fromkeys(("fp32", shape.dtype)):
            yield Call.of(self.name, tokens=min(128, limits.max_tokens), parameters=parameters)

    def sample(self, shape: ModelShape, limits: Limits, rng: random.Random) -> Call:
        """Return a call of random length."""
        tokens = traffic.random_length(rng, limits.max_tokens)
        return Call.of(self.name, tokens=tokens, parameters=rng.choice(("fp32", shape.dtype)))

    def tune(self, shape: ModelShape, tokens: int, limits: Limits) -> Iterator[Call]:
        """Yield ``tokens`` tokens with every type of the parameters."""
        if tokens <= limits.max_tokens:
            for parameters in dict.fromkeys(("fp32", shape.dtype)):
                yield Call.of(self.name, tokens=tokens, parameters=parameters)

    def inputs(self, shape: ModelShape, call: Call, draw: Draw) -> Tensors:
        """Draw raw gates and parameters."""
        args: dict[str, Any] = dict(call.arguments)
        size, parameters = (1, args["tokens"], shape.v_heads, shape.k_dim), DTYPES[args["parameters"]]
        a_log = draw.log_a(shape.v_heads, parameters, bounded=shape.gate_bound < 0)
        made: Tensors = {
            "x": draw.normal(*size, dtype=DTYPES[shape.dtype], grad=self.backward),
            "A_log": a_log.requires_grad_(self.backward),
            "dt_bias": draw.dt_bias(shape.v_heads * shape.k_dim, parameters).requires_grad_(self.backward),
        }
        return made | ({f"{GRADIENT}out": draw.normal(*size, dtype=torch.float32)} if self.backward else {})

    def apply(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Call the function. Returns ``out`` in float32, and for training the gradients of inputs."""
        del call
        return through(partial(self._made, fused_kda_gate, lower_bound=shape.gate_bound or None), inputs)

    def expect(self, shape: ModelShape, call: Call, inputs: Tensors) -> Tensors:
        """Return the logarithm of the decay."""
        del call
        return exactly(partial(self._made, reference.gate, bound=shape.gate_bound), inputs)

    @staticmethod
    def _made(function: Callable[..., torch.Tensor], inputs: Tensors, **bound: float | None) -> Tensors:
        x, a_log, dt_bias = (there(inputs, name) for name in ("x", "A_log", "dt_bias"))
        return {"out": function(x, a_log, dt_bias, **bound)}


_KNOWN = all(source_mentions(chunk_kda, word) for word in ("state_v_first", "use_beta_sigmoid_in_kernel", "safe_gate"))
"""Whether this release of FLA takes the calls above: 0.6.0 does."""
_WORKLOADS: dict[str, Callable[[], Workload]] = {
    "transformers-kda-prefill": lambda: KdaPrefill("transformers-kda-prefill", layer=False),
    "transformers-kda-decode": lambda: KdaRecurrent("transformers-kda-decode", layer=False),
    "layer-kda-prefill": lambda: KdaPrefill("layer-kda-prefill", layer=True),
    "layer-kda-recurrent": lambda: KdaRecurrent("layer-kda-recurrent", layer=True),
    "kda-gate": lambda: KdaGate("kda-gate"),
    "transformers-kda-train": lambda: KdaPrefill("transformers-kda-train", layer=False, backward=True),
    "layer-kda-train": lambda: KdaPrefill("layer-kda-train", layer=True, backward=True),
    "kda-gate-train": lambda: KdaGate("kda-gate-train", backward=True),
}
WORKLOADS = _WORKLOADS if _KNOWN else {}
