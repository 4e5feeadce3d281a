"""The process that checks on the card: makes a provider's calls with given binaries, and compares with float64.

Started by `gdn_aot.measuring.check`, which survives it. The process says that its card is one of the target, so that
the provider takes the ways that it takes there; each launch of a call is caught, and the target's binary, or its PTX,
is launched with the real arguments. Nothing is compiled by Triton, and nothing is tuned.
"""

from __future__ import annotations

import contextlib
import json
import random
import warnings
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gdn_aot import triton_internals
from gdn_aot.catalogue.models import ModelShape
from gdn_aot.catalogue.providers import Limits
from gdn_aot.machine.child import first_line, serve
from gdn_aot.machine.full import lacks_memory
from gdn_aot.measuring.process import CardServer, Plan, calling, free_memory
from gdn_aot.providers import makes
from gdn_aot.providers.draw import Random
from gdn_aot.providers.gradients import kept
from gdn_aot.records.numerics import choice_digest, plain_launch_digest
from gdn_aot.reference.tolerance import changed, compare
from gdn_aot.tracing.recorder import triton_config
from gdn_aot.tracing.relax import Relaxer
from gdn_aot.triton_internals import direct, interception

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.measuring.card import Launchable
    from gdn_aot.providers.workload import Call, Workload

LENGTHS = (300, 1111)
"""Tokens of calls of real length, beside the cases: no multiples of a chunk of 64."""
_FEW = 3
"""Largest dense batch at those lengths."""
SAMPLES = 4
"""Random calls of each workload for each shape."""


class NotMadeError(Exception):
    """A call cannot be made with the target's binaries; the message says why."""


class CannotRunError(Exception):
    """The device refused a binary; the message says why."""


class PlanLauncher:
    """Launches a plan's binaries with its choices, in place of what Triton would, and counts."""

    def __init__(self, card: Any, plan: Plan, note: Any, relaxer: Relaxer) -> None:
        self._card, self._plan, self._note, self._relaxer = card, plan, note, relaxer
        self._configs = {(kernel.name, key): config for kernel in plan.kernels for key, config in kernel.choices}
        self._loaded: dict[tuple[str, str], Launchable] = {}
        self.launched: dict[str, tuple[int, set[str], set[str]]] = {}
        """Kernel -> launches, launch keys, and digests of choices and launches without one, since `reset`."""
        self.label = ""
        self._tuned = False
        """Whether the launch under way is that of an autotuner with a choice."""

    def reset(self, label: str) -> None:
        """Start counting for another call."""
        self.launched, self.label = {}, label

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Take over launches for the duration of a ``with`` block."""
        with interception.intercept_live(self._on_autotune, self._on_launch):
            yield

    def _on_autotune(self, tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(tuner.configs) == 1:
            return triton_internals.run_config(tuner, args, kwargs, tuner.configs[0])
        name, key = triton_internals.looked_up(tuner, args, kwargs)
        config = self._configs.get((name, key))
        if config is None:
            raise NotMadeError(f"{name} has no choice for key {key}")
        self._count(name)[2].add(choice_digest(name, key, config))
        self._tuned = True
        try:
            return triton_internals.run_config(tuner, args, kwargs, triton_config(config))
        finally:
            self._tuned = False

    def _on_launch(self, jit: Any, args: tuple[Any, ...], kwargs: dict[str, Any], grid: Any) -> None:
        prepared = direct.BoundLaunch(jit, args, kwargs, grid, self._relaxer.constants)
        name = triton_internals.kernel_name(jit)
        self._note(json.dumps([self.label, name]))
        launch = self._loaded.get((name, prepared.key))
        if launch is None:
            binary = self._plan.binary(name, prepared.key)
            if isinstance(binary, str):
                raise NotMadeError(f"{name} has no binary for this launch: {binary}")
            launch = self._loaded[name, prepared.key] = self._try(name, "loaded", self._card.load, jit, *binary)
        count, keys, choices = self._count(name)
        keys.add(prepared.key)
        if not self._tuned:
            choices.add(plain_launch_digest(name, prepared.key))
        self.launched[name] = count + 1, keys, choices
        self._try(name, "launched", launch, prepared.grid, prepared.arguments)

    def _try(self, kernel: str, what: str, function: Any, *args: Any) -> Any:
        """Call a function of the device. An error that ends the context comes out of waiting for it."""
        try:
            return function(*args)
        except RuntimeError as error:
            self._card.synchronize()
            raise CannotRunError(f"{kernel} cannot be {what}: {first_line(error)}") from error

    def _count(self, kernel: str) -> tuple[int, set[str], set[str]]:
        return self.launched.setdefault(kernel, (0, set(), set()))


def planned_calls(workload: Workload, shape: ModelShape, limits: Limits) -> list[Call]:
    """Return the calls to check: every case, every pattern at real lengths, and random ones.

    The cases have every dense batch; at real lengths a few do.
    """
    few = replace(limits, max_batch=min(limits.max_batch, _FEW))
    rng = random.Random(f"{workload.name} {shape}")  # noqa: S311
    calls = list(workload.cases(shape, limits))
    for tokens in LENGTHS:
        calls += workload.tune(shape, tokens, few)
    calls += [workload.sample(shape, limits, rng) for _ in range(SAMPLES)]
    return list(dict.fromkeys(calls))


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Fill every tensor that PyTorch makes without content with NaN: what a kernel does not write shows."""
    import torch

    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # which is what fills them
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def check_call(workload: Workload, shape: ModelShape, call: Call, card: Any, launcher: PlanLauncher) -> dict[str, Any]:
    """Make one call on random inputs. Returns ``wrong``, None if nothing is, and how far each result is off."""
    seed = zlib.crc32(f"{shape} {call}".encode())
    with calling(card.device):
        inputs = workload.inputs(shape, call, Random(seed, card.device))
        expected = workload.expect(shape, call, inputs)
        before = kept(inputs)
        with launcher.active(), poisoned():
            outputs = workload.apply(shape, call, inputs)
        card.synchronize()
        made = compare(workload.kind, before, outputs, expected)
        touched = changed(workload.kind, inputs, before)
    wrong = "; ".join(filter(None, [made.wrong, touched])) or None
    off = [[item.name, _number(item.error), item.limit, _number(item.share)] for item in made.deviations]
    return {"wrong": wrong, "off": off}


def _number(value: float) -> float | None:
    """Return a value that JSON can hold: None for what is no finite number."""
    return value if abs(value) < float("inf") else None


class CheckServer(CardServer):
    """Checks what the parent asks for."""

    def serve(self, request: dict[str, Any]) -> None:
        """Make every call that is not done yet, and send what came of each."""
        plan, relaxer = Plan.read(request["plan"]), Relaxer.of(self.module)
        launcher = PlanLauncher(self.card, plan, self.channel.notes.write, relaxer)
        limits, done = Limits(**request["limits"]), {tuple(place) for place in request["done"]}
        shapes = [ModelShape(**shape) for shape in request["shapes"]]
        for name in request["workloads"]:
            if name not in self.module.WORKLOADS:
                continue
            workload = self.module.WORKLOADS[name]()
            for place, shape in enumerate(shapes):
                calls = planned_calls(workload, shape, limits) if makes(request["provider"], workload, shape) else []
                for number, call in enumerate(calls):
                    if (name, place, number) in done:
                        continue
                    launcher.reset(str(call))
                    where = {"place": [name, place, number], "of": len(calls), "call": str(call)}
                    self.channel.notes.write(json.dumps([str(call), ""]))
                    self.channel.send({"event": "coming", **where})
                    answer = self._check(workload, shape, call, launcher)
                    kernels = {
                        kernel: [count, sorted(keys), sorted(choices)]
                        for kernel, (count, keys, choices) in launcher.launched.items()
                    }
                    self.channel.send({"event": "checked", **where, **answer, "kernels": kernels})
        self.channel.send({"event": "done"})

    def _check(self, workload: Workload, shape: ModelShape, call: Call, launcher: PlanLauncher) -> dict[str, Any]:
        try:
            return check_call(workload, shape, call, self.card, launcher)
        except NotMadeError as error:
            return {"skipped": str(error)}
        except (CannotRunError, ValueError, TypeError, NotImplementedError) as error:
            if not lacks_memory(error):
                return {"wrong": f"{type(error).__name__}: {first_line(error)}", "off": []}
            said = first_line(error)
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            said = first_line(error)
        free_memory()
        return {"skipped": f"out of memory: {said}"}


def main() -> None:
    """Check for the parent until it wants no more."""
    serve(CheckServer)
