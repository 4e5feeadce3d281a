"""The parent's side of measuring: keeps a worker going through one shape, whatever candidates do to it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from gdn_aot.errors import UsageError
from gdn_aot.machine.child import EndedError
from gdn_aot.measuring.process import CARD, PlannedKernel, PlannedKey, begin
from gdn_aot.providers import module_name
from gdn_aot.records.objective import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import Limits
    from gdn_aot.launches import CompiledKernel, Config, KernelKey, Key
    from gdn_aot.measuring.cards import MeasuringCard
    from gdn_aot.measuring.process import Measurer, PlannedBinary

Place = tuple[int, str, int]
"""A call: its tokens, its workload, its number among the workload's calls at that many tokens."""
MOST_RESTARTS = 40
"""Processes that one shape may cost before the rest of it is given up."""


@dataclass
class KeyState:
    """One autotune key: its candidates and what was measured."""

    kernel: str
    key: Key
    configs: list[Config]
    offered: int
    """Candidates, from the start, that are the provider's own. They are timed in full at every token count."""
    objects: list[CompiledKernel | None]
    """What compiling each candidate gave, for the first launch of the key that was traced."""
    out: dict[int, tuple[int, str]] = field(default_factory=dict)
    """Candidates that are out: the token count at which it showed (0: before any launch), and why."""
    samples: dict[int, dict[int, Sample]] = field(default_factory=dict)
    """Token count -> candidate -> time."""
    unheld: tuple[int, ...] = ()
    """Candidates of which the card that stands in holds fewer blocks at a time than the target."""
    gated: set[int] = field(default_factory=set)
    """Token counts at which candidates were compared only."""
    idle: bool = False
    """Not to be measured: launched with its first candidate, because calls that are measured launch it too."""
    fresh: bool = False
    """Something was measured in this run."""
    call: str = ""
    reference: int = 0


@dataclass
class Unit:
    """What to measure for one shape."""

    shape: ModelShape
    keys: dict[KernelKey, KeyState]
    binaries: dict[str, dict[str, PlannedBinary | str]]
    """Kernel -> launch key -> what the worker needs of it, or why there is none."""
    calls: dict[Place, list[KernelKey]] = field(default_factory=dict)
    """The calls that are needed, and the keys that each is needed for."""


@dataclass
class Findings:
    """What measuring one shape came to, beside the samples in its keys."""

    called: int = 0
    stalled: set[tuple[str, Key, int]] = field(default_factory=set)
    """Keys and token counts at which a process ended while candidates were timed, which each had run before."""
    given_up: set[Place] = field(default_factory=set)
    """Calls that were made, or cannot be."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Calls that could not be made, and why."""
    wrong: dict[str, str] = field(default_factory=dict)
    """Calls whose outputs are not those of float64, with the provider's first candidates."""
    restarts: list[str] = field(default_factory=list)
    """Why processes ended."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How to measure."""

    provider: str
    limits: Limits
    tokens: tuple[int, ...]
    """Token counts to measure at."""
    gate_tokens: tuple[int, ...]
    """Token counts at which candidates are compared but not timed."""
    rounds: int
    search_seconds: float
    """What the search among candidates that the provider does not offer may take, for each launch."""
    silence: float
    """Seconds without any sign of life after which a worker is killed."""
    target: str | None = None
    """What the card is to be taken for, if it stands in for another target."""
    card: str = CARD
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the card."""


class Session:
    """A worker process on a card that is replaced when it ends. Entering starts the first one.

    Raises:
        UsageError: The worker cannot be started at all: no device, or a broken provider.
        LostError: The card cannot be used any more. So may `measure` and `check`.
    """

    def __init__(self, method: Method, card: MeasuringCard) -> None:
        self._method, self._card = method, card
        self._everywhere = (*method.gate_tokens, *method.tokens)
        self._worker: Measurer | None = None
        self.device: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._close(at_once=kind is not None)

    def _close(self, *, at_once: bool) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end(at_once=at_once)

    def _start(self) -> Measurer:
        worker = self._worker = self._card.start()
        method, where = self._method, f" on node {self._card.name}" if self._card.name else ""
        request = {"card": method.card, "options": dict(method.options), "module": module_name(method.provider)}
        if method.target:
            request["target"] = method.target
        try:
            self.device = begin(worker, f"measuring process cannot start{where}", request)
        except UsageError:
            self._close(at_once=True)
            raise
        worker.silence = method.silence
        return worker

    def measure(self, unit: Unit, outcome: Findings, progress: Callable[[Findings], None]) -> None:
        """Gate and time every candidate of a unit's keys; results are put into the keys as they come."""
        while True:
            worker = self._worker or self._start()
            worker.send(self._request("tune", unit, self._left(unit, outcome)))
            try:
                while (event := worker.receive())["event"] != "done":
                    if event["event"] == "called":
                        self._called(event, outcome)
                        progress(outcome)
                    else:
                        _take(unit, event)
            except EndedError as error:
                self._close(at_once=True)
                outcome.restarts.append(error.reason)
                if not blame(unit, error, outcome) or len(outcome.restarts) > MOST_RESTARTS:
                    outcome.skipped["the rest of the shape"] = f"{error.reason}, at {error.note}"
                    return
            else:
                return

    def _left(self, unit: Unit, outcome: Findings) -> list[Place]:
        """Return the calls that still are to be made, in the order of the token counts and workloads."""
        wanted = {place: keys for place, keys in unit.calls.items() if place not in outcome.given_up}
        return [place for place, keys in wanted.items() if self._needed(place[0], [unit.keys[key] for key in keys])]

    def _needed(self, tokens: int, states: list[KeyState]) -> bool:
        if tokens in self._method.tokens:
            return any(tokens not in state.samples for state in states)
        return any(tokens not in state.gated and not state.samples for state in states)

    def check(self, unit: Unit, chosen: Sequence[tuple[str, Key, int]], tokens: Sequence[int]) -> dict[str, str]:
        """Return the calls with chosen candidates that float64 does not confirm, and why.

        Each key is in one call: of these token counts, else the shortest that has it.
        """
        worker = self._worker or self._start()
        outcome = Findings()
        left = {(name, key) for name, key, _ in chosen}
        places = []
        for place in sorted(unit.calls, key=lambda place: (place[0] not in tokens, place[0])):
            if left.intersection(unit.calls[place]):
                left.difference_update(unit.calls[place])
                places.append(place)
        worker.send({**self._request("check", unit, places), "chosen": chosen, "timed": []})
        try:
            while (event := worker.receive())["event"] != "done":
                self._called(event, outcome)
        except EndedError as error:
            self._close(at_once=True)
            outcome.wrong[error.note] = error.reason
        return outcome.wrong

    @staticmethod
    def _called(event: dict[str, Any], outcome: Findings) -> None:
        outcome.called += 1
        outcome.given_up.add(tuple(event["place"]))
        if reason := event.get("skipped"):
            outcome.skipped[event["call"]] = reason
        if wrong := event.get("wrong"):
            outcome.wrong[event["call"]] = wrong

    def _request(self, what: str, unit: Unit, places: Sequence[Place]) -> dict[str, Any]:
        method = self._method
        return {
            "do": what,
            "shape": asdict(unit.shape),
            "plan": self._card.plan(self._plan(unit)),
            "limits": asdict(method.limits),
            "places": places,
            "timed": list(method.tokens),
            "rounds": method.rounds,
            "search_seconds": method.search_seconds,
        }

    def _plan(self, unit: Unit) -> list[PlannedKernel]:
        kernels = {name: PlannedKernel(name, rows) for name, rows in unit.binaries.items()}
        for state in unit.keys.values():
            done = set(self._everywhere) if state.idle else {*state.samples, *state.gated}
            out = {index: reason for index, (_, reason) in state.out.items()}
            kernel = kernels.setdefault(state.kernel, PlannedKernel(state.kernel))
            kernel.keys.append(PlannedKey(state.key, state.configs, state.offered, out, done))
        return list(kernels.values())


def _take(unit: Unit, event: dict[str, Any]) -> None:
    state = unit.keys[event["kernel"], tuple(event["key"])]
    tokens = int(event["tokens"])
    state.reference = event["reference"]
    for index, reason in event["out"].items():
        state.out.setdefault(int(index), (tokens, reason))
    if event["event"] == "gated":
        state.gated.add(tokens)
    else:
        state.fresh, state.call = True, state.call or event["call"]
        state.samples[tokens] = {int(index): Sample(us, event["noise"][index]) for index, us in event["us"].items()}


def blame(unit: Unit, error: EndedError, outcome: Findings) -> bool:
    """Put out what ended a worker by its last note; False if nothing is to blame, and trying again would end alike.

    A candidate is out for every key of its kernel. If it happened while candidates were timed, which had all run
    before, it is tried again once; then those timed are out for that key, but for the reference. If it happened outside
    of any candidate, the call is given up.
    """
    try:
        name, key, index, tokens, what = json.loads(error.note)
    except ValueError:
        return False
    state = unit.keys.get((name, tuple(key)))
    if state is None:
        return _give_up(unit, key, what, error.reason, outcome)
    reason = f"its process ended: {error.reason}"
    if isinstance(what, list):
        place = (name, state.key, tokens)
        if place not in outcome.stalled:
            outcome.stalled.add(place)
            return True
        suspects = [other for other in what if other not in state.out and other != index]
        state.out.update(dict.fromkeys(suspects, (tokens, reason)))
        return bool(suspects)
    fresh = False
    config = state.configs[index]
    for other in unit.keys.values():
        if other.kernel == name and config in other.configs:
            number = other.configs.index(config)
            if number not in other.out:
                fresh = True
                other.out[number] = (tokens, reason)
    return fresh


def _give_up(unit: Unit, place: list[object], call: object, reason: str, outcome: Findings) -> bool:
    found = next((known for known in unit.calls if list(known) == place), None)
    if found is None or found in outcome.given_up:
        return False
    outcome.given_up.add(found)
    outcome.skipped[str(call)] = reason
    return True
