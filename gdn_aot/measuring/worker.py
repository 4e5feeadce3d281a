"""The process that measures on the card: one shape at a time, through the provider's own calls.

Started by `gdn_aot.measuring.client`, which also survives it. A call is made as traffic makes it, on random data; each
autotuned launch in it is caught, every candidate is put through the numeric gate and timed with the very tensors of
that launch, and the call then goes on with the reference candidate's results. What is about to be launched is noted
first, so that the parent knows which candidate ended the process.
"""

from __future__ import annotations

import gc
import importlib
import json
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot import triton_internals
from gdn_aot.catalogue.models import ModelShape
from gdn_aot.catalogue.providers import Limits
from gdn_aot.compiling.cache import BuildCache
from gdn_aot.launches import Config, config_from_json
from gdn_aot.machine.child import Channel, serve
from gdn_aot.measuring import gate
from gdn_aot.measuring.halving import Halving
from gdn_aot.measuring.statistics import sample
from gdn_aot.providers import load
from gdn_aot.store.index_records import BinaryRecord
from gdn_aot.tracing.recorder import triton_config
from gdn_aot.tracing.relax import Relaxer
from gdn_aot.triton_internals import direct, interception

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gdn_aot.measuring.card import Card, Launchable


REPETITION_SECONDS = 5e-4
"""What timing a launch once is thought to take before any was timed."""
KEPT = 12
"""Candidates that the provider does not offer which are timed in full."""


class _SkipError(Exception):
    """A call cannot be made as planned; the message says why."""


@dataclass
class Key:
    """One autotune key: its candidates, and what is known of them."""

    key: tuple[Any, ...]
    configs: list[Config]
    offered: int
    """Candidates, from the start, that are the provider's own."""
    out: dict[int, str]
    """Candidates that are out, and why."""
    done: set[int]
    """Token counts that are settled."""


class Plan:
    """What to measure for one shape, as the parent wrote it."""

    def __init__(self, path: Path) -> None:
        data = json.loads(path.read_bytes())
        self._cache = BuildCache(Path(data["cache"]))
        self.keys: dict[tuple[str, tuple[Any, ...]], Key] = {}
        self._binaries: dict[str, dict[str, Any]] = {}
        for kernel in data["kernels"]:
            self._binaries[kernel["name"]] = kernel["binaries"]
            for row in kernel["keys"]:
                key = Key(
                    key=tuple(row["key"]),
                    configs=[config_from_json(config) for config in row["configs"]],
                    offered=row["offered"],
                    out={int(index): reason for index, reason in row["out"].items()},
                    done=set(row["done"]),
                )
                self.keys[kernel["name"], key.key] = key

    def binary(self, kernel: str, launch_key: str) -> tuple[BinaryRecord, bytes] | str:
        """Return the binary for a launch, or why there is none."""
        row = self._binaries.get(kernel, {}).get(launch_key)
        if row is None:
            return "it was not compiled for this launch"
        if isinstance(row, str):
            return row
        record = BinaryRecord(launch_key, row["cubin"], row["metadata"], {"signature": row["signature"]})
        return record, self._cache.cubin(row["cubin"])


class Shape:
    """Measures one shape.

    Args:
        card: The device.
        plan: What to measure.
        send: Sends an event to the parent.
        note: Notes what is about to be launched.
        rounds: Timed rounds of each candidate.
        search_seconds: What the search among candidates that the provider does not offer may take, for each launch.
        relaxer: Knows what the provider relaxes.
    """

    def __init__(
        self,
        card: Card,
        plan: Plan,
        send: Callable[[dict[str, Any]], None],
        note: Callable[[str], None],
        rounds: int,
        search_seconds: float,
        relaxer: Relaxer,
    ) -> None:
        self._card, self._plan, self._send, self._note = card, plan, send, note
        self._rounds, self._search_seconds, self._relaxer = rounds, search_seconds, relaxer
        self._loaded: dict[tuple[str, str], Launchable | str] = {}
        self._tokens, self._timed, self._label = 0, False, ""
        self._chosen: dict[tuple[str, tuple[Any, ...]], int] | None = None
        self.call_note = ""
        """What to note while no candidate is launched."""
        self.combination: set[tuple[str, int]] = set()
        """The candidates whose results the last call was made of."""

    @contextmanager
    def at(self, tokens: int, label: str, *, timed: bool) -> Iterator[None]:
        """Measure, or only gate, the launches of a call made meanwhile."""
        self._tokens, self._timed, self._label, self.combination = tokens, timed, label, set()
        with interception.intercept_live(self._on_autotune, self._on_launch):
            yield

    @contextmanager
    def with_choices(self, chosen: dict[tuple[str, tuple[Any, ...]], int]) -> Iterator[None]:
        """Make calls with these candidates, measuring nothing."""
        self._chosen, self.combination = chosen, set()
        try:
            with interception.intercept_live(self._on_autotune, self._on_launch):
                yield
        finally:
            self._chosen = None

    def _on_launch(self, jit: Any, args: tuple[Any, ...], kwargs: dict[str, Any], grid: Any) -> None:
        prepared = self._prepared(jit, args, kwargs, grid)
        launch = self._load(prepared)
        if isinstance(launch, str):
            raise _SkipError(f"{triton_internals.kernel_name(jit)}: {launch}")
        launch(prepared.grid, prepared.arguments)

    def _prepared(self, jit: Any, args: tuple[Any, ...], kwargs: dict[str, Any], grid: Any) -> direct.BoundLaunch:
        return direct.BoundLaunch(jit, args, kwargs, grid, self._relaxer.constants(jit))

    def _load(self, prepared: direct.BoundLaunch) -> Launchable | str:
        name = triton_internals.kernel_name(prepared.jit)
        found = self._loaded.get((name, prepared.key))
        if found is None:
            binary = self._plan.binary(name, prepared.key)
            try:
                found = binary if isinstance(binary, str) else self._card.load(prepared.jit, *binary)
            except RuntimeError as error:
                self._card.synchronize()
                found = f"it cannot be loaded: {_text(error)}"
            self._loaded[name, prepared.key] = found
        return found

    def _on_autotune(self, tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(tuner.configs) == 1:
            offered = triton_internals.candidates(tuner, args, kwargs)
            return triton_internals.run_config(tuner, args, kwargs, offered[0])
        name = triton_internals.kernel_name(triton_internals.layers(tuner)[0])
        plain = {word: value for word, value in kwargs.items() if word not in ("grid", "warmup")}
        found = (name, triton_internals.autotune_key(tuner, args, plain))
        key = self._plan.keys.get(found)
        if key is None:
            raise _SkipError(f"{name} has an autotune key that was not planned: {found[1]}")
        if self._chosen is None and self._tokens not in key.done:
            self.combination.add((name, self._reference(name, key)))
            return self._measure(name, key, tuner, args, kwargs)
        index = (self._chosen or {}).get(found, self._reference(name, key))
        self.combination.add((name, index))
        return triton_internals.run_config(tuner, args, kwargs, triton_config(key.configs[index]))

    def _reference(self, name: str, key: Key) -> int:
        for index in range(len(key.configs)):
            if index not in key.out:
                return index
        raise _SkipError(f"{name}: no candidate is left for key {key.key}")

    def _measure(self, name: str, key: Key, tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        launches = self._launches(key, tuner, args, kwargs)
        reference = self._reference(name, key)

        def run(index: int) -> None:
            prepared, launch = launches[index]
            launch(prepared.grid, prepared.arguments)

        def about(index: int, what: object) -> None:
            self._note(json.dumps([name, key.key, index, self._tokens, what]))

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
        key: Key,
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
        halving = Halving(
            [reference, *others], reference, self._search_seconds, first=2, most=8, keep=KEPT, cost=REPETITION_SECONDS
        )
        best: dict[int, float] = {}
        while (step := halving.next()) is not None:
            scores = {index: sample(row).us for index, row in timed(step.candidates, step.repetitions).items()}
            best.update(scores)
            halving.take(dict(scores))
        for index in set(others).difference(halving.survivors):
            took = f"took {best[index]:.1f} us, the best {min(best.values()):.1f}" if index in best else "had no turn"
            key.out[index] = f"fell out of the search at {self._tokens} tokens: {took}"
        return [*own, *sorted(set(others).intersection(halving.survivors))]

    def _launches(
        self, key: Key, tuner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[int, tuple[direct.BoundLaunch, Launchable]]:
        """Return what each candidate that is not out would launch."""
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
        """Launch and wait. Returns what the device had against it; an error that ends the context is raised."""
        try:
            launch()
            self._card.synchronize()
        except RuntimeError as error:
            self._card.synchronize()
            return f"it cannot be launched: {_text(error)}"
        return None


def _flags(call: Any) -> tuple[object, ...]:
    """Return a call's arguments without its sizes: calls that differ in these alone do the same to each chunk."""
    plain = (bool, str, type(None))
    return tuple((name, value if isinstance(value, plain) else type(value)) for name, value in call.arguments)


def _text(error: BaseException) -> str:
    return triton_internals.compiler_message(error).splitlines()[0][:300]


class Server:
    """Answers the parent's requests."""

    def __init__(self, channel: Channel, request: dict[str, Any]) -> None:
        import torch

        self._channel, self._torch = channel, torch
        triton_internals.check_supported()
        module, _, name = request["card"].partition(":")
        self._card: Card = getattr(importlib.import_module(module), name)(**request["options"])
        self._module: Any = load(request["provider"])
        channel.send({"event": "started", **self._card.describe()})

    def serve(self, request: dict[str, Any]) -> None:
        """Measure one shape, or check choices of one shape against float64."""
        shape = ModelShape(**request["shape"])
        plan = Plan(Path(request["plan"]))
        channel = self._channel
        seconds = request["search_seconds"]
        relaxer = Relaxer.of(self._module)
        work = Shape(self._card, plan, channel.send, channel.notes.write, request["rounds"], seconds, relaxer)
        chosen = None
        if request["do"] == "check":
            chosen = {(kernel, tuple(key)): index for kernel, key, index in request["chosen"]}
        self._confirmed: set[object] = set()
        wanted: dict[tuple[int, str], set[int]] = {}
        for count, name, number in request["places"]:
            wanted.setdefault((count, name), set()).add(number)
        for (tokens, name), numbers in wanted.items():
            workload = self._module.WORKLOADS[name]()
            for number, call in enumerate(workload.tune(shape, tokens, Limits(**request["limits"]))):
                if number in numbers:
                    timed = tokens in request["timed"]
                    place = [tokens, name, number]
                    answer = self._call(work, workload, shape, call, place, timed=timed, chosen=chosen)
                    self._channel.send({"event": "called", "place": place, "call": str(call), **answer})
        self._channel.send({"event": "done"})

    def _call(
        self, work: Shape, workload: Any, shape: ModelShape, call: Any, place: list[Any], *, timed: bool, chosen: Any
    ) -> dict[str, Any]:
        tokens: int = place[0]
        from gdn_aot.providers.draw import Random
        from gdn_aot.reference.tolerance import compare

        work.call_note = json.dumps(["", place, -1, tokens, str(call)])
        self._channel.notes.write(work.call_note)
        seed = zlib.crc32(f"{shape.name} {shape.tp} {call}".encode())
        try:
            with self._torch.device(self._card.device), self._torch.no_grad():
                inputs = workload.inputs(shape, call, Random(seed, self._card.device))
                before = inputs if timed else {key: None if x is None else x.clone() for key, x in inputs.items()}
                doing = work.with_choices(chosen) if chosen is not None else work.at(tokens, str(call), timed=timed)
                with doing:
                    outputs = workload.apply(shape, call, inputs)
                self._card.synchronize()
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
        except self._torch.OutOfMemoryError as error:
            reason = f"out of memory: {str(error).splitlines()[0]}"
        gc.collect()
        if self._torch.cuda.is_initialized():
            self._torch.cuda.empty_cache()
        return {"skipped": reason}


def main() -> None:
    """Measure for the parent until it wants no more."""
    serve(Server)
