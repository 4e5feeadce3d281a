"""The process that measures on the card: one shape at a time, through the provider's own calls.

Started by `gdn_aot.measuring.client`, which also survives it. A call is made as traffic makes it, on random data; each
autotuned launch in it is caught, every candidate is put through the numeric gate and timed with the very tensors of
that launch, and the call then goes on with the reference candidate's results. What is about to be launched is noted
first, so that the parent knows which candidate ended the process.
"""

from __future__ import annotations

import json
import zlib
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from gdn_aot import triton_internals
from gdn_aot.catalogue.models import ModelShape
from gdn_aot.catalogue.providers import Limits
from gdn_aot.machine.child import first_line, serve
from gdn_aot.machine.full import lacks_memory
from gdn_aot.measuring import gate
from gdn_aot.measuring.halving import halve
from gdn_aot.measuring.process import CardServer, Plan, calling, free_memory
from gdn_aot.records.objective import sample
from gdn_aot.tracing.recorder import triton_config
from gdn_aot.tracing.relax import Relaxer
from gdn_aot.triton_internals import direct, interception

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gdn_aot.launches import KernelKey
    from gdn_aot.machine.child import Channel
    from gdn_aot.measuring.card import Cuda, Launchable
    from gdn_aot.measuring.process import PlannedKey

REPETITION_SECONDS = 5e-4
"""What timing a launch once is thought to take before any was timed."""
KEPT = 12
"""Candidates that the provider does not offer which are timed in full."""


class _SkipError(Exception):
    """A call cannot be made as planned; the message says why."""


class Shape:
    """Measures one shape.

    ``search_seconds`` are for the search among candidates that the provider does not offer, for each launch.
    """

    def __init__(
        self, card: Cuda, plan: Plan, channel: Channel, relaxer: Relaxer, rounds: int, search_seconds: float
    ) -> None:
        self._card, self._plan, self._relaxer = card, plan, relaxer
        self._send, self._note = channel.send, channel.notes.write
        self._rounds, self._search_seconds = rounds, search_seconds
        self._keys = {(kernel.name, key.key): key for kernel in plan.kernels for key in kernel.keys}
        self._loaded: dict[tuple[str, str], Launchable | str] = {}
        self._tokens, self._timed, self._label = 0, False, ""
        self._chosen: dict[KernelKey, int] | None = None
        self.call_note = ""
        """What to note while no candidate is launched."""
        self.combination: set[tuple[str, int]] = set()
        """The candidates whose results the last call was made of."""

    @contextmanager
    def at(self, tokens: int, label: str, *, timed: bool, chosen: dict[KernelKey, int] | None) -> Iterator[None]:
        """Measure, or only gate, the launches of a call made meanwhile; or make it with these candidates."""
        self._tokens, self._timed, self._label = tokens, timed, label
        self._chosen, self.combination = chosen, set()
        with interception.intercept_live(self._on_autotune, self._on_launch):
            yield

    def _on_launch(self, jit: Any, args: tuple[Any, ...], kwargs: dict[str, Any], grid: Any) -> None:
        prepared = self._prepared(jit, args, kwargs, grid)
        launch = self._load(prepared)
        if isinstance(launch, str):
            raise _SkipError(f"{triton_internals.kernel_name(jit)}: {launch}")
        launch(prepared.grid, prepared.arguments)

    def _prepared(self, jit: Any, args: tuple[Any, ...], kwargs: dict[str, Any], grid: Any) -> direct.BoundLaunch:
        return direct.BoundLaunch(jit, args, kwargs, grid, self._relaxer.constants)

    def _load(self, prepared: direct.BoundLaunch) -> Launchable | str:
        name = triton_internals.kernel_name(prepared.jit)
        found = self._loaded.get((name, prepared.key))
        if found is None:
            binary = self._plan.binary(name, prepared.key)
            try:
                found = binary if isinstance(binary, str) else self._card.load(prepared.jit, *binary)
            except RuntimeError as error:
                self._refused(error)
                found = f"it cannot be loaded: {_text(error)}"
            self._loaded[name, prepared.key] = found
        return found

    def _on_autotune(self, tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(tuner.configs) == 1:
            return triton_internals.run_config(tuner, args, kwargs, tuner.configs[0])
        name, _ = found = triton_internals.looked_up(tuner, args, kwargs)
        key = self._keys.get(found)
        if key is None:
            raise _SkipError(f"{name} has an autotune key that was not planned: {found[1]}")
        if self._chosen is None and self._tokens not in key.done:
            self.combination.add((name, self._reference(name, key)))
            return self._measure(name, key, tuner, args, kwargs)
        index = (self._chosen or {}).get(found, self._reference(name, key))
        self.combination.add((name, index))
        return triton_internals.run_config(tuner, args, kwargs, triton_config(key.configs[index]))

    def _reference(self, name: str, key: PlannedKey) -> int:
        for index in range(len(key.configs)):
            if index not in key.out:
                return index
        raise _SkipError(f"{name}: no candidate is left for key {key.key}")

    def _about(self, name: str, key: PlannedKey, index: int, what: object) -> None:
        self._note(json.dumps([name, key.key, index, self._tokens, what]))

    def _measure(self, name: str, key: PlannedKey, tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        launches = self._launches(key, tuner, args, kwargs)
        reference = self._reference(name, key)

        def run(index: int) -> None:
            prepared, launch = launches[index]
            launch(prepared.grid, prepared.arguments)

        about = partial(self._about, name, key)
        about(reference, "reference")
        effects = gate.find_effects(
            launches[reference][0].arguments, partial(run, reference), direct.declared_zero(tuner)
        )
        for index in list(launches):
            about(index, "gate")
            effects.restore()
            effects.poison()
            reason = self._try(partial(run, index)) or effects.objection()
            if reason is not None:
                key.out[index] = reason
                del launches[index]
        key.done.add(self._tokens)
        event: dict[str, Any] = {
            "event": "measured" if self._timed else "gated",
            "kernel": name,
            "key": key.key,
            "tokens": self._tokens,
            "call": self._label,
            "reference": reference,
        }
        if self._timed:

            def timed(indices: Sequence[int], rounds: int) -> dict[int, list[float]]:
                about(reference, list(indices))
                calls = [partial(run, index) for index in indices]
                return dict(zip(indices, self._card.time(calls, effects.restore, rounds), strict=True))

            indices = self._search(key, list(launches), reference, timed)
            samples = {index: sample(row) for index, row in timed(indices, self._rounds).items()}
            event["us"] = {str(index): one.us for index, one in samples.items()}
            event["noise"] = {str(index): one.noise for index, one in samples.items()}
        event["out"] = {str(index): reason for index, reason in key.out.items()}
        effects.finish()
        self._note(self.call_note)
        self._send(event)

    def _search(
        self,
        key: PlannedKey,
        indices: list[int],
        reference: int,
        timed: Callable[[Sequence[int], int], dict[int, list[float]]],
    ) -> list[int]:
        """Return the candidates to time in full: the provider's own, and the best of the others.

        The others are halved by their times at this token count; those that fall out are out for the key.
        """
        own = [index for index in indices if index < key.offered]
        others = [index for index in indices if index not in own]
        if len(others) <= KEPT:
            return indices
        best: dict[int, float] = {}

        def measure(candidates: Sequence[int], repetitions: int) -> dict[int, float]:
            scores = {index: sample(row).us for index, row in timed(candidates, repetitions).items()}
            best.update(scores)
            return scores

        seconds, cost = self._search_seconds, REPETITION_SECONDS
        left = halve([reference, *others], reference, seconds, measure, first=2, most=8, keep=KEPT, cost=cost)
        for index in set(others).difference(left):
            took = f"took {best[index]:.1f} us, the best {min(best.values()):.1f}" if index in best else "had no turn"
            key.out[index] = f"fell out of the search at {self._tokens} tokens: {took}"
        return [*own, *sorted(set(others).intersection(left))]

    def _launches(
        self, key: PlannedKey, tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[int, tuple[direct.BoundLaunch, Launchable]]:
        caught: list[direct.BoundLaunch] = []
        found: dict[int, tuple[direct.BoundLaunch, Launchable]] = {}
        with interception.intercept_live(self._on_autotune, lambda *launch: caught.append(self._prepared(*launch))):
            for index, config in enumerate(key.configs):
                if index in key.out:
                    continue
                triton_internals.run_config(tuner, args, kwargs, triton_config(config))
                prepared = caught.pop()
                launch = self._load(prepared)
                if isinstance(launch, str):
                    key.out[index] = launch
                else:
                    found[index] = prepared, launch
        return found

    def _try(self, launch: Callable[[], None]) -> str | None:
        """Launch and wait. Returns what the device had against it; what is not the candidate's fault is raised."""
        try:
            launch()
            self._card.synchronize()
        except RuntimeError as error:
            self._refused(error)
            return f"it cannot be launched: {_text(error)}"
        return None

    def _refused(self, error: RuntimeError) -> None:
        """Go on after an error of one candidate, if the device can; a full card says nothing against a candidate."""
        if lacks_memory(error):
            raise error
        self._card.synchronize()


def _flags(call: Any) -> tuple[object, ...]:
    """Return a call's arguments without its sizes: calls that differ in these alone do the same to each chunk."""
    plain = (bool, str, type(None))
    return tuple((name, value if isinstance(value, plain) else type(value)) for name, value in call.arguments)


def _text(error: BaseException) -> str:
    return triton_internals.compiler_message(error).splitlines()[0][:300]


class TuneServer(CardServer):
    """Answers the parent's requests."""

    def serve(self, request: dict[str, Any]) -> None:
        """Measure one shape, or check choices of one shape against float64."""
        shape, channel = ModelShape(**request["shape"]), self.channel
        plan, relaxer = Plan.read(request["plan"]), Relaxer.of(self.module)
        work = Shape(self.card, plan, channel, relaxer, request["rounds"], request["search_seconds"])
        chosen = None
        if request["do"] == "check":
            chosen = {(kernel, tuple(key)): index for kernel, key, index in request["chosen"]}
        self._confirmed: set[object] = set()
        wanted: dict[tuple[int, str], set[int]] = {}
        for count, name, number in request["places"]:
            wanted.setdefault((count, name), set()).add(number)
        for (tokens, name), numbers in wanted.items():
            workload = self.module.WORKLOADS[name]()
            for number, call in enumerate(workload.tune(shape, tokens, Limits(**request["limits"]))):
                if number in numbers:
                    timed = tokens in request["timed"]
                    place = [tokens, name, number]
                    answer = self._call(work, workload, shape, call, place, timed=timed, chosen=chosen)
                    channel.send({"event": "called", "place": place, "call": str(call), **answer})
        channel.send({"event": "done"})

    def _call(
        self, work: Shape, workload: Any, shape: ModelShape, call: Any, place: list[Any], *, timed: bool, chosen: Any
    ) -> dict[str, Any]:
        from gdn_aot.providers.draw import Random
        from gdn_aot.providers.gradients import kept
        from gdn_aot.reference.tolerance import compare

        tokens: int = place[0]
        work.call_note = json.dumps(["", place, -1, tokens, str(call)])
        self.channel.notes.write(work.call_note)
        seed = zlib.crc32(f"{shape.name} {shape.tp} {call}".encode())
        try:
            with calling(self.card.device):
                inputs = workload.inputs(shape, call, Random(seed, self.card.device))
                before = inputs if timed else kept(inputs)
                with work.at(tokens, str(call), timed=timed, chosen=chosen):
                    outputs = workload.apply(shape, call, inputs)
                self.card.synchronize()
                kind = (workload.name, frozenset(work.combination), _flags(call))
                if timed or kind in self._confirmed:
                    return {}
                self._confirmed.add(kind)
                expected = workload.expect(shape, call, before)
                return {"wrong": compare(workload.kind, before, outputs, expected).wrong}
        except _SkipError as error:
            return {"skipped": str(error)}
        except ValueError as error:
            return {"skipped": f"{type(error).__name__}: {error}"}
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            said = first_line(error)
        free_memory()
        return {"skipped": f"out of memory: {said}"}


def main() -> None:
    """Measure for the parent until it wants no more."""
    serve(TuneServer)
