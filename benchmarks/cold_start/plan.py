"""Which processes make up each state, and the run through all of them."""

from __future__ import annotations

import itertools
import json
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import ROOT, ask, command, described

from cold_start import turns
from gdn_aot.artifact.verify import open_artifact

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator, Mapping

PROGRAM = ROOT / "benchmarks" / "cold_start.py"
CALLS = ("dense", "varlen")
STEADY = 50
"""Calls after the first two of which the median is taken."""
WARM = ("b", "c", "d", "e", "preload", "preload-pool", "nocc", "f", "e-torch", "f-torch")
"""States that are measured in every round."""
CASES = ("a", "b", "c", "d", "e", "preload", "nocc", "f", "e-torch", "f-torch")
OF_FLA = ("c",)
"""States that only FLA has."""
PAIRS = (("e", "f"), ("e-torch", "f-torch"))
"""States whose processes of one round and call run one after the other, and are compared with each other."""
FLOORS = tuple(floor for _, floor in PAIRS)


class _Task(NamedTuple):
    """What one process measures."""

    round: int
    state: str
    call: str


class Run:
    """One run: state after state, each record kept as soon as it is there.

    Args:
        options: Of the command line.
        root: A directory to work in; also the home of the loader's store.
        save: Called with the document after each step.
    """

    def __init__(self, options: Namespace, root: Path, save: Callable[[dict[str, Any]], None]) -> None:
        self._options, self._root, self._save = options, root, save
        self._calls = [call for call in CALLS if call in options.calls]
        self._wanted = {*options.cases, *(["preload-pool"] if "preload" in options.cases else [])}
        self._start = time.monotonic()
        self._name = datetime.now(UTC).isoformat(timespec="seconds")
        """Of this run, in each record: a file may hold those of several."""
        self._end = self._start + options.seconds
        self._launches: dict[str, Any] = {}
        self._usable: set[str] = {"e", "preload", "preload-pool", "nocc", "e-torch"}
        """States whose processes have what they need, and of which none has failed."""
        self._steady = ("c", "e") if options.provider == "fla" else ("b", "e")
        """States whose steady calls are compared."""
        self.document: dict[str, Any] = {"records": [], "steps": []}

    def all(self) -> dict[str, Any]:
        """Run everything that is wanted. Returns the document."""
        self._prepare()
        rounds = [self._round(number) for number in range(self._options.repeat)]
        if self._options.at_once > 1:
            for batch in _batches([unit for made in rounds for unit in made], self._options.at_once):
                self._together(batch)
        else:
            for number, made in enumerate(rounds):
                for task in itertools.chain.from_iterable(made):
                    if self._has_time() and task.state in self._usable:
                        self._warm(task)
                self._step(f"round {number + 1}")
        self._step("end")
        return self.document

    def _prepare(self) -> None:
        """Fill the store and the caches, and measure the first start of each state."""
        code = "import sys, gdn_aot; gdn_aot.install(sys.argv[1])"
        self._command("fill the store", "-c", code, self._options.artifact)
        self._strict: dict[str, str] = {}
        if self._options.provider == "fla":
            configs = str(self._root / "fla-configs")
            export = ("-m", "gdn_aot", "export", "--format", "fla", "--artifact", self._options.artifact, "-o", configs)
            self._strict = self._command("gdn-aot export", *export, "--json").get("environment", {})
        self.document["artifact"] = described(open_artifact(self._options.artifact))
        if self._wanted & {*FLOORS}:
            record = self._measure("record", "all", {}, "record", loader=True, calls=self._calls)
            self._launches = record.get("launches", {})
            self._step("record launches for the floor", ok=record["ok"], error=record.get("error", ""))
            self._usable |= {*FLOORS} if self._launches else set()
            self.document["used"] = {call: _used(launches) for call, launches in self._launches.items()}
        if self._wanted & {"a", "b"}:
            self._leave("a", "b", {})
        if "c" in self._wanted:
            self._leave("c", "c", self._strict)
        if "d" in self._wanted:
            seed = ("-m", "gdn_aot", "seed", self._options.artifact, "--into", self._cache("d"))
            self._command("gdn-aot seed", *seed)
            self._leave("d", "d", {})

    def _command(self, name: str, *words: str) -> dict[str, Any]:
        """Run Python with these words; what it printed, if that is JSON, is returned."""
        done = command(sys.executable, *words, env={"GDN_AOT_HOME": str(self._root)}, seconds=300)
        self._step(name, ok=done["ok"], error=done.get("error", ""))
        found: dict[str, Any] = json.loads(done["stdout"]) if "--json" in words and done["ok"] else {}
        return found

    def _step(self, name: str, *, ok: bool = True, error: str = "") -> None:
        elapsed = round(time.monotonic() - self._start, 1)
        self.document["steps"].append({"step": name, "elapsed_s": elapsed, "ok": ok, "error": error})
        print(f"[{elapsed:6.1f} s] {name}{'' if ok else ': ' + error}", file=sys.stderr, flush=True)
        self._save(self.document)

    def _measure(self, case: str, call: str, env: dict[str, str], kind: str = "first", **spec: Any) -> dict[str, Any]:
        """Run one process, and keep its record."""
        options = self._options
        common = {"call": call, "artifact": options.artifact, "dry": options.dry, "steady": options.steady_calls}
        common |= {"called": options.called, "provider": options.provider}
        home = {"GDN_AOT_HOME": str(self._root), "COLD_START_LIBCUDA": options.dry}
        answer = ask(PROGRAM, kind, {**common, **spec}, {**home, **env})
        if not answer["ok"]:
            self._usable -= {case}
            print(answer["stderr"], file=sys.stderr)
        record = {"case": case, "call": call, "run": self._name, **answer}
        if "round" in spec:
            record["round"] = spec["round"]
        self.document["records"].append(record)
        return record

    def _cache(self, state: str) -> str:
        """Return the Triton cache of a state. It is used where it was made: Triton 3.6 keeps absolute paths in it."""
        return str(self._root / f"triton-{state}")

    def _leave(self, state: str, warm: str, env: dict[str, str]) -> None:
        """Make both calls in one process, which leaves its cache behind for the processes of the state ``warm``."""
        env = {**env, "TRITON_CACHE_DIR": self._cache(state)}
        record = self._measure(f"{state}-first", "dense", env, then=self._calls[1:])
        self._usable |= {warm} if record["ok"] else set()
        self._step(f"{state}, first start", ok=record["ok"], error=record.get("error", ""))

    def _round(self, number: int) -> list[list[_Task]]:
        """Return the processes of a round, shuffled; those of one of `PAIRS` with one call stay one after the other."""
        rng = random.Random(number)
        states = [state for state in WARM if state in self._wanted & self._usable]
        pairs = [pair for pair in PAIRS if {*pair} <= {*states}]
        groups = [*pairs, *((state,) for state in states if not any(state in pair for pair in pairs))]
        units = [[_Task(number, state, call) for state in group] for group in groups for call in self._calls]
        for unit in units:
            rng.shuffle(unit)
        rng.shuffle(units)
        return units

    def _has_time(self) -> bool:
        return time.monotonic() < self._end

    def _together(self, tasks: list[_Task]) -> None:
        """Measure calls in processes that get ready together and take turns in this order."""
        tasks = [task for task in tasks if task.state in self._usable]
        if not tasks or not self._has_time():
            return
        kept = threading.Lock()
        with tempfile.TemporaryDirectory(dir=self._root) as folder, ThreadPoolExecutor(len(tasks)) as pool:
            batch = {turns.FOLDER: folder, turns.COUNT: str(len(tasks))}

            def measure(number: int) -> None:
                record = self._warm(tasks[number], {**batch, turns.NUMBER: str(number)})
                with kept:
                    self._save(self.document)
                if not record["ok"]:
                    turns.leave(Path(folder), str(number))

            list(pool.map(measure, range(len(tasks))))
        self._step(f"{len(tasks)} processes")

    def _warm(self, task: _Task, batch: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
        """Measure a call in a state, in a process that has the variables of ``batch``. Returns the record."""
        number, state, call = task
        then = {"then": ["small"]} if state in self._steady and call == "dense" else {}
        ran = {"torch": state.endswith("-torch")}
        if state in FLOORS:
            return self._measure(state, call, {**batch}, "floor", round=number, launches=self._launches[call], **ran)
        if state in ("b", "c", "d"):
            env = {"TRITON_CACHE_DIR": self._cache("a" if state == "b" else state), **batch}
            return self._measure(state, call, {**env, **(self._strict if state == "c" else {})}, round=number, **then)
        nothing = self._root / "no-compiler"
        nothing.mkdir(exist_ok=True)
        env = {"PATH": str(nothing), "CC": ""} if state == "nocc" else {}
        preload = {"preload": self._options.model} if state.startswith("preload") else {}
        own = {**env, **batch}
        more = {**preload, **then, **ran, "pool": state == "preload-pool"}
        return self._measure(state, call, own, round=number, loader=True, **more)


def _batches(units: list[list[_Task]], most: int) -> Iterator[list[_Task]]:
    """Yield processes of units in batches of at most so many, or of one unit that has more."""
    batch: list[_Task] = []
    for unit in units:
        if batch and len(batch) + len(unit) > most:
            yield batch
            batch = []
        batch = batch + unit
    if batch:
        yield batch


def _used(launches: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many launches a call makes, of how many kernels and binaries."""
    return {
        "launches": len(launches),
        "kernels": len({launch["kernel"] for launch in launches}),
        "binaries": len({(launch["kernel"], launch["key"]) for launch in launches}),
    }
