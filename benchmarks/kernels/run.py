"""One shape: FLA tunes itself, then everything is timed in one process, then times are looked up by configuration."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdn_aot.compiling.local import local_card
from gdn_aot.launches import config_from_json
from gdn_aot.measuring.client import Outcome, Session
from kernels import plan
from kernels.worker import ask

if TYPE_CHECKING:
    from gdn_aot.launches import Config
    from gdn_aot.measuring.client import KeyState, Unit
    from gdn_aot.measuring.plan import Prepared
    from gdn_aot.records.objective import Sample
    from gdn_aot.records.tuning import TuningTable
    from kernels.calls import Launched, Place, Prompt

DUMMY = 64
"""Tokens of the prompt that a warm-up tunes on."""
DUMMIES = 3
"""Times that FLA tunes itself on it."""
_FELL = "fell out of the search"
_ENDED = "its process ended"

Picks = dict["Place", "Config"]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Fla:
    """What plain FLA chose: at each length, and each time on the dummy."""

    def __init__(self) -> None:
        self.at: dict[int, Picks] = {}
        self.dummies: list[Picks] = []
        self.runs: list[dict[str, Any]] = []
        """What each tuning did: seconds, configurations benchmarked, kernels compiled (none)."""
        self.error = ""

    @classmethod
    def tuned(cls, made: plan.Preparation, group: plan.Group, tokens: list[int], *, dry: bool) -> Fla:
        """Let FLA tune itself in a fresh process whose Triton cache has all binaries and no choice."""
        found = cls()
        counts = [*[DUMMY] * DUMMIES, *(count for count in tokens if count != DUMMY)]
        try:
            with tempfile.TemporaryDirectory(prefix="kernels-triton-", ignore_cleanup_errors=True) as folder:
                seeded = plan.seed(made.artifact(group), Path(folder))
                say(f"{group.names[0]}: FLA tunes itself with {seeded['binaries']} binaries at {counts} tokens")
                env = {"TRITON_CACHE_DIR": folder, "FLA_CACHE_RESULTS": "0"}
                spec = {"shape": asdict(group.shape), "limits": asdict(made.limits), "tokens": counts, "dry": dry}
                runs = ask("fla", env, **spec)
        except RuntimeError as error:
            found.error = str(error)
            say(f"{group.names[0]}: FLA's own choices are missing: {error}")
            return found
        for run in runs:
            picks = {
                (pick["kernel"], tuple(pick["key"])): config_from_json(pick["config"]) for pick in run.pop("picks")
            }
            found.at.setdefault(run["tokens"], picks)
            if run["tokens"] == DUMMY:
                found.dummies.append(picks)
            found.runs.append(run)
        return found


def measure(made: plan.Preparation, prepared: Prepared) -> dict[str, Any]:
    """Time all candidates at all lengths in one process; samples are put into the keys.

    What falls out of a search at one length takes part again at the next: the best for each length is wanted.

    Returns:
        The device as the process sees it, and what went wrong.
    """
    (unit,) = prepared.units
    every, method = dict(unit.calls), made.method()
    wrong: dict[str, str] = {}
    restarts: list[str] = []
    seconds = {}
    with local_card(made.cache) as card, Session(method, card) as session:
        device = dict(session.device)
        for tokens in method.tokens:
            start = time.monotonic()
            unit.calls = {place: keys for place, keys in every.items() if place[0] == tokens}
            outcome = Outcome()
            session.measure(unit, outcome, lambda _outcome: None)
            wrong |= outcome.skipped | outcome.wrong
            restarts += outcome.restarts
            seconds[tokens] = round(time.monotonic() - start, 2)
            say(f"  {tokens} tokens: {seconds[tokens]} s{_problems(outcome)}")
            for state in unit.keys.values():
                state.out = {index: why for index, why in state.out.items() if not why[1].startswith(_FELL)}
    unit.calls = every
    return {"device": device, "skipped": wrong, "restarts": restarts, "seconds": seconds, "out": _out(unit)}


def keep(prepared: Prepared, shipped: TuningTable) -> None:
    """Have what is shipped timed at every length, wherever a search would drop it."""
    for place, state in prepared.keys.items():
        if (choice := shipped.get(place)) is not None:
            wanted = _identity(choice.config)
            state.kept = tuple(index for index, config in enumerate(state.configs) if _identity(config) == wanted)


class Crashes:
    """Candidates of a wide search that ended the measuring process: later shapes do without them."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, Config], str] = {}

    def spare(self, prepared: Prepared) -> None:
        """Take them out of a shape that is about to be measured."""
        for state in prepared.keys.values():
            for index, config in enumerate(state.configs):
                if index >= state.offered and (reason := self._found.get((state.kernel, config))):
                    state.out.setdefault(index, (0, f"for another shape {reason}"))

    def note(self, prepared: Prepared) -> None:
        """Learn from a shape that was measured."""
        for state in prepared.keys.values():
            for index, (tokens, reason) in state.out.items():
                if tokens and reason.startswith(_ENDED):
                    self._found[state.kernel, state.configs[index]] = reason


def _problems(outcome: Outcome) -> str:
    found = [*outcome.skipped.values(), *outcome.wrong.values(), *outcome.restarts]
    return "".join(f"; {text}" for text in found)


def _out(unit: Unit) -> list[dict[str, Any]]:
    """Return the candidates that were launched and are out."""
    return [
        {"kernel": state.kernel, "candidate": str(state.configs[index]), "tokens": tokens, "reason": reason}
        for state in unit.keys.values()
        for index, (tokens, reason) in state.out.items()
        if tokens
    ]


class Table:
    """Looks up the columns of one shape in what was measured."""

    def __init__(self, prepared: Prepared, fla: Fla, shipped: TuningTable, bandwidth: float) -> None:
        self._keys = prepared.keys
        self._fla, self._shipped, self._bandwidth = fla, shipped, bandwidth

    def at(self, prompt: Prompt) -> dict[str, Any]:
        """Return the kernels of a prompt in order, and what else is known of that length."""
        kernels: dict[str, Any] = {}
        for launch in prompt.launches:
            name, number = launch.kernel, 1
            while name in kernels:
                number += 1
                name = f"{launch.kernel} #{number}"
            kernels[name] = self._entry(launch, prompt.tokens)
        sums = [self._sum(prompt, picks) for picks in self._fla.dummies]
        return {"kernels": kernels, "pick64_sums": sums}

    def _entry(self, launch: Launched, tokens: int) -> dict[str, Any]:
        state = self._keys[launch.place]
        row = state.samples.get(tokens, {})
        own = [index for index in row if index < state.offered]
        entry: dict[str, Any] = {
            "timed": len(row),
            "candidates": len(state.configs),
            "offered": state.offered,
            "provider_best": _best(state, row, own),
            "wide_best": _best(state, row, list(row)),
            "fla_tuned": _column(state, row, self._fla.at.get(tokens, {}).get(launch.place)),
            "pick64": None,
            "shipped": None,
            "floor": launch.moved / self._bandwidth * 1e6,
            "bytes": launch.moved,
        }
        if self._fla.dummies:
            entry["pick64"] = self._dummy(launch, tokens, self._fla.dummies[0])
        if (choice := self._shipped.get(launch.place)) is not None:
            entry["shipped"] = _column(state, row, choice.config)
            if choice.wide and entry["shipped"] is not None:
                entry["shipped"]["wide"] = True
        return entry

    def _dummy(self, launch: Launched, tokens: int, picks: Picks) -> dict[str, Any] | None:
        """Return the time of what the dummy made FLA choose.

        A prompt whose key the dummy does not have makes FLA tune that kernel again: what it chose at this length
        counts, or the best of its candidates if it was not asked.
        """
        state = self._keys[launch.place]
        row = state.samples.get(tokens, {})
        if (config := picks.get(launch.place)) is not None:
            return _column(state, row, config)
        own = [index for index in row if index < state.offered]
        again = _column(state, row, self._fla.at.get(tokens, {}).get(launch.place)) or _best(state, row, own)
        return again and {**again, "retuned": True}

    def _sum(self, prompt: Prompt, picks: Picks) -> float | None:
        found = [self._dummy(launch, prompt.tokens, picks) for launch in prompt.launches]
        return round(sum(one["us"] for one in found if one), 3) if all(found) else None


def _best(state: KeyState, row: dict[int, Sample], indices: list[int]) -> dict[str, Any] | None:
    return _shown(state, row, min(indices, key=lambda index: row[index].us)) if indices else None


def _column(state: KeyState, row: dict[int, Sample], config: Config | None) -> dict[str, Any] | None:
    """Return the time of a configuration. One that was not timed has that of a twin: the same binary and grid."""
    found = [index for index, one in enumerate(state.configs) if config and _identity(one) == _identity(config)]
    if not found:
        return None
    twins = [index for index in row if index == found[0] or _twins(state, index, found[0])]
    if not twins:
        return None
    index = found[0] if found[0] in row else twins[0]
    shown = _shown(state, row, index)
    return shown if index == found[0] else {**shown, "config": str(state.configs[found[0]]), "twin": shown["config"]}


def _twins(state: KeyState, one: int, other: int) -> bool:
    """Return whether two candidates are the same binary, launched alike; `measuring.prune` times only the first."""
    ours, theirs = state.objects[one], state.objects[other]
    if ours is None or theirs is None:
        return False
    sides = ((state.configs[one], ours), (state.configs[other], theirs))
    first, second = (
        (frozenset(config.kwargs), config.num_ctas, made.cubin, made.shared, made.threads) for config, made in sides
    )
    return first == second


def _identity(config: Config) -> tuple[object, ...]:
    return frozenset(config.kwargs), config.num_warps, config.num_stages, config.num_ctas, config.maxnreg


def _shown(state: KeyState, row: dict[int, Sample], index: int) -> dict[str, Any]:
    one = row[index]
    return {"us": round(one.us, 3), "noise": round(one.noise, 3), "config": str(state.configs[index])}


def timings(prepared: Prepared) -> list[dict[str, Any]]:
    """Return every time that was taken, one row per key and length."""
    return [
        {
            "kernel": state.kernel,
            "key": json.loads(json.dumps(state.key)),
            "tokens": tokens,
            "us": {str(state.configs[index]): round(one.us, 2) for index, one in sorted(row.items())},
        }
        for state in prepared.keys.values()
        for tokens, row in state.samples.items()
    ]
