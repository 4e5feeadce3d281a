"""Random traffic in one process, every result compared with float64.

The calls are those of the workloads of `gdn_aot.providers.fla`, made by their own ``run``: only the functions of FLA
that it calls are wrapped, to put numbers into the empty tensors and to look at what comes back.
"""

from __future__ import annotations

import random
import time
from typing import Any

import torch
from torch.nn.functional import normalize

from gdn_aot.numerics import reference
from gdn_aot.numerics import tolerance as checking
from gpu import calls


class Checker:
    """Stands for FLA's functions in the provider's modules, and compares what they return."""

    def __init__(self) -> None:
        self.source = calls.generator(0)
        self.lengths: tuple[int, ...] | None = None
        """Lengths of the packed sequences of the call under way."""
        self.label = ""
        self.worst: dict[str, float] = {}
        self.wrong: list[str] = []
        self.checked = 0

    def draw(self, *tensors: torch.Tensor | None) -> None:
        for tensor in tensors:
            if tensor is not None:
                tensor.normal_(generator=self.source)

    def note(self, name: str, error: float, limit: float) -> None:
        if not checking.within(error, limit):
            self.wrong.append(f"{self.label}: {name} is off by {error:.3g}, allowed is {limit:.3g}")
        if not error <= self.worst.get(name, 0.0):
            self.worst[name] = error

    def outputs(self, kind: str, found: torch.Tensor, expected: torch.Tensor) -> None:
        if not bool(torch.isfinite(found).all()):
            self.wrong.append(f"{self.label}: {kind} has numbers that are not finite")
        sequence, chunk = checking.token_errors(found, expected, self.lengths)
        if sequence is not None:
            self.note(f"{kind}.out of a sequence", sequence, checking.LONG[f"{kind}.out"])
        self.note(f"{kind}.out of a chunk", chunk, checking.SHORT[f"{kind}.out"])
        self.checked += 1

    def operator(self, real: Any, kind: str) -> Any:
        """Wrap one of the two operators."""

        def call(**kwargs: Any) -> Any:
            q, k, v, g, beta, initial = (kwargs[name] for name in ("q", "k", "v", "g", "beta", "initial_state"))
            self.draw(q, k, v, g, beta, initial)
            layer = kwargs.get("use_gate_in_kernel", False)
            parameters = calls.gate_parameters(v.shape[2], self.source)
            if layer:
                kwargs["A_log"].copy_(parameters["A_log"])
                kwargs["dt_bias"].copy_(parameters["dt_bias"])
                decay = calls.decays(g.double(), {name: kwargs[name] for name in parameters})
                weight = beta.double().sigmoid() * (2 if kwargs.get("allow_neg_eigval") else 1)
            else:
                g.copy_(calls.decays(g, parameters))
                beta.sigmoid_()
                decay, weight = g, beta
            if kwargs["use_qk_l2norm_in_kernel"]:
                queries, keys = reference.normalized(q), reference.normalized(k)
            else:  # then the caller has done it
                for x in (q, k):
                    x.copy_(normalize(x.float(), dim=-1))
                queries, keys = q, k
            before = None if initial is None else initial.clone()
            out, last = real(**kwargs)
            v_first = kwargs.get("state_v_first", False)
            start = before.mT if before is not None and v_first else before
            expected, state = reference.delta_rule(queries, keys, v, decay, weight, start, self.lengths)
            self.outputs(kind, out, expected)
            if before is not None and last is not initial and not torch.equal(before, initial):
                self.wrong.append(f"{self.label}: the state it was given has changed")
            if kwargs["output_final_state"]:
                found = last.mT if v_first else last
                limits = checking.LONG if out.shape[1] >= checking.CHUNK and self.lengths is None else checking.SHORT
                name = "gated.state" if layer and kind == "recurrent" else f"{kind}.state"
                self.note(name, checking.state_error(found, state), limits[name])
            elif last is not None:
                self.wrong.append(f"{self.label}: a state came back that nobody asked for")
            return out, last

        return call

    def convolution(self, real: Any) -> Any:
        """Wrap ``causal_conv1d`` as the layer calls it: without states."""

        def call(**kwargs: Any) -> Any:
            self.draw(kwargs["x"])
            out, last = real(**kwargs)
            expected, _ = reference.short_convolution(kwargs["x"], kwargs["weight"], None, None)
            self.outputs("conv", out, expected)
            return out, last

        return call

    def norm_class(self, real: type) -> type:
        checker = self

        class Norm(real):  # type: ignore[misc, valid-type]
            def forward(self, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
                checker.draw(x, g)
                self.weight.data.normal_(1.0, 0.1, generator=checker.source)
                out = super().forward(x, g)
                checker.outputs("norm", out, reference.gated_norm(x, g, self.weight, self.eps, self.activation))
                return out

        return Norm

    def convolution_class(self, real: type) -> type:
        checker = self

        class Convolution(real):  # type: ignore[misc, valid-type]
            def forward(self, x: torch.Tensor, cache: torch.Tensor | None = None, **kwargs: Any) -> Any:
                checker.draw(x, cache)
                before = None if cache is None else cache.clone()
                out, last = super().forward(x, cache=cache, **kwargs)
                weight = self.weight.squeeze(1)
                expected, state = reference.short_convolution(x, weight, before, checker.lengths)
                checker.outputs("conv", out, expected)
                if kwargs["output_final_state"] and not torch.equal(last, state):
                    checker.wrong.append(f"{checker.label}: the convolution's last state is not the last inputs")
                return out, last

        return Convolution

    def wrap(self) -> None:
        """Take the place of FLA's functions where the provider's modules have them."""
        from gdn_aot.providers import fla, fla_modules

        fla.chunk_gated_delta_rule = self.operator(fla.chunk_gated_delta_rule, "chunk")
        fla.fused_recurrent_gated_delta_rule = self.operator(fla.fused_recurrent_gated_delta_rule, "recurrent")
        fla_modules.causal_conv1d = self.convolution(fla_modules.causal_conv1d)
        fla_modules.FusedRMSNormGated = self.norm_class(fla_modules.FusedRMSNormGated)
        fla_modules.ShortConvolution = self.convolution_class(fla_modules.ShortConvolution)


def packed_lengths(arguments: dict[str, Any]) -> tuple[int, ...] | None:
    """Return the lengths of a call's packed sequences, or None for a dense batch."""
    if arguments.get("packed"):
        return tuple(arguments["packed"])
    if arguments.get("index") and "packed" not in arguments:  # the recurrent operator packs equal lengths
        return (arguments["tokens"],) * arguments["batch"]
    return None


def references_agree() -> dict[str, float]:
    """Compare the two forms of the reference with each other, at the shape under test."""
    shape, errors = calls.model_shape(), {}
    for tokens, start in ((65, False), (512, True)):
        inputs = calls.operator_inputs(shape, 2, tokens, seed=tokens)
        initial = calls.states(shape, 2, seed=1) if start else None
        inputs["q"], inputs["k"] = reference.normalized(inputs["q"]), reference.normalized(inputs["k"])
        (out, state), (chunked_out, chunked_state) = (
            form(**inputs, state=initial) for form in (reference.recurrence, reference.chunked)
        )
        errors[f"out.{tokens}"] = calls.relative(chunked_out, out)
        errors[f"state.{tokens}"] = calls.relative(chunked_state, state)
    return errors


def main(options: dict[str, Any]) -> dict[str, Any]:
    """Make ``count`` calls of the ``workloads``, at tensor-parallel sizes ``tp``, and check each."""
    import gdn_aot

    gdn_aot.install(options["artifact"], strict=True)
    watch = calls.Watch()
    from gdn_aot.providers import Limits
    from gdn_aot.providers import fla as provider

    checker = Checker()
    checker.wrap()
    rng = random.Random(options["seed"])
    limits = Limits(max_tokens=options["max_tokens"], max_batch=options["max_batch"])
    workloads = [provider.WORKLOADS[name]() for name in options["workloads"]]
    shapes = [calls.model_shape(tp) for tp in options["tp"]]
    made: dict[str, int] = {}
    started = time.perf_counter()
    with torch.device(calls.DEVICE):
        agreement = references_agree()
        for _ in range(options["count"]):
            workload, shape = rng.choice(workloads), rng.choice(shapes)
            call = workload.sample(shape, limits, rng)
            checker.label = f"{call} tp {shape.tp}"
            checker.lengths = packed_lengths(dict(call.arguments))
            try:
                workload.run(shape, call)
            except Exception as error:  # noqa: BLE001 - the next call may be fine, and one run should tell all
                checker.wrong.append(f"{checker.label}: {type(error).__name__}: {error}")
                if "CUDA error" in str(error) or "illegal memory" in str(error):
                    break  # nothing works after this
            made[f"{workload.name} tp {shape.tp}"] = made.get(f"{workload.name} tp {shape.tp}", 0) + 1
        calls.synchronize()
    return {
        "seconds": time.perf_counter() - started,
        "calls": dict(sorted(made.items())),
        "checked": checker.checked,
        "wrong": checker.wrong,
        "worst": checker.worst,
        "references_agree": agreement,
        "watch": watch.to_dict(),
        "report": calls.report(),
    }


if __name__ == "__main__":
    calls.finish(main)
