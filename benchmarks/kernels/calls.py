"""The call that is measured, what it launches, and how many bytes each launch must move.

The call is one dense prompt through ``chunk_gated_delta_rule`` as transformers makes it: no state before, the state
after it wanted, queries and keys normalized by the operator.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

if TYPE_CHECKING:
    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.launches import Scalar
    from gdn_aot.providers.workload import Call, Workload
    from gdn_aot.tracing.records import Trace

PROVIDER = "fla"
WORKLOAD = "transformers-prefill"
KERNELS = 7
"""Autotuned launches of the call: six kernels, that of the norm for queries and for keys."""
_WANTED = {"batch": 1, "packed": None, "h0": False, "ht": True, "l2norm": True}

Place = tuple[str, "tuple[Scalar, ...]"]
"""A kernel and one of its autotune keys."""


@dataclass(frozen=True, kw_only=True)
class Launched:
    """One autotuned launch of the call."""

    kernel: str
    key: tuple[Scalar, ...]
    first: str
    """Launch key with the provider's first candidate, which tells variants of one autotune key apart."""
    moved: int
    """Bytes of all tensors among its arguments: each is read once or written once, as a whole."""

    @property
    def place(self) -> Place:
        """The kernel and the autotune key."""
        return self.kernel, self.key


@dataclass(frozen=True)
class Prompt:
    """The call at one length."""

    tokens: int
    number: int
    """Among the calls that the workload yields for this length."""
    launches: tuple[Launched, ...]
    """In order."""


def find(workload: Workload, shape: ModelShape, tokens: int, limits: Limits) -> tuple[int, Call]:
    """Return the wanted call, and its number among those of `Workload.tune`."""
    wanted = {**_WANTED, "tokens": tokens}
    for number, call in enumerate(workload.tune(shape, tokens, limits)):
        arguments = dict(call.arguments)
        if all(arguments[name] == value for name, value in wanted.items()):
            return number, call
    raise LookupError(f"{workload.name} has no call with {wanted}")


def trace(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the prompts of one shape as JSON. Runs in a process of its own, which needs no card."""
    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.catalogue.targets import get_target
    from gdn_aot.providers import load
    from gdn_aot.tracing import stub

    stub.activate(get_target(spec["target"]))
    workload = load(PROVIDER).WORKLOADS[WORKLOAD]()
    shape, limits = ModelShape(**spec["shape"]), Limits(**spec["limits"])
    found = []
    for tokens in spec["tokens"]:
        number, call = find(workload, shape, tokens, limits)
        launches = _launches(workload, shape, call)
        if len(launches) != KERNELS:
            raise LookupError(f"{call} launches {len(launches)} autotuned kernels, not {KERNELS}")
        found.append(asdict(Prompt(tokens, number, tuple(launches))))
    return found


def _launches(workload: Workload, shape: ModelShape, call: Call) -> list[Launched]:
    import torch

    from gdn_aot import triton_internals
    from gdn_aot.triton_internals import interception

    found: list[Launched] = []

    def on_autotune(tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        offered = triton_internals.candidates(tuner, args, kwargs)
        plain = {name: value for name, value in kwargs.items() if name not in ("grid", "warmup")}
        caught: list[str] = []

        def on_launch(jit: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught.append(triton_internals.Launch(jit, args, kwargs).key)

        with interception.intercept(on_autotune, on_launch):
            triton_internals.run_config(tuner, args, kwargs, offered[0])
        tensors = [value for value in (*args, *plain.values()) if isinstance(value, torch.Tensor)]
        found.append(
            Launched(
                kernel=triton_internals.kernel_name(triton_internals.layers(tuner)[0]),
                key=triton_internals.autotune_key(tuner, args, plain),
                first=caught[0],
                moved=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            )
        )

    with interception.intercept(on_autotune, lambda *_: None):
        workload.run(shape, call)
    return found


def prompts(found: list[dict[str, Any]]) -> list[Prompt]:
    """Read what `trace` returned."""
    return [
        Prompt(
            row["tokens"],
            row["number"],
            tuple(Launched(**{**launch, "key": tuple(launch["key"])}) for launch in row["launches"]),
        )
        for row in found
    ]


def narrow(trace: Trace, wanted: list[Prompt]) -> Trace:
    """Return of one shape's trace the autotune keys, their variants and the calls that the prompts have."""
    firsts: dict[Place, set[str]] = {}
    for prompt in wanted:
        for launch in prompt.launches:
            firsts.setdefault(launch.place, set()).add(launch.first)
    tunings, at = [], {}
    for traced in trace.tunings:
        place = (trace.kernels[traced.kernel].name, traced.key)
        kept = [
            number
            for number, variant in enumerate(traced.variants)
            if trace.launches[variant[0]].key in firsts.get(place, ())
        ]
        if kept:
            at[place] = len(tunings)
            variants, users = [traced.variants[number] for number in kept], [traced.users[number] for number in kept]
            tunings.append(replace(traced, variants=variants, users=users))
    places = [
        (0, prompt.tokens, WORKLOAD, prompt.number, list(dict.fromkeys(at[launch.place] for launch in prompt.launches)))
        for prompt in wanted
    ]
    return replace(trace, tunings=tunings, places=places)
