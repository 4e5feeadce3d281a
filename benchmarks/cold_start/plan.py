"""Which processes make up each state, and the run through all of them."""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cold_start import configs
from cold_start.session import Task, command, run_together

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from pathlib import Path

CALLS = ("dense", "varlen")
STEADY = 50
"""Calls after the first two of which the median is taken."""

WARM = ("b", "c", "d", "e", "preload", "preload-pool", "nocc", "f")
"""States that are measured in every round."""
PARTS = ("a", "b", "c", "d", "e", "preload", "nocc", "f", "steady", "profile", "install")

_INSTALL = """
import sys, time
start = time.perf_counter()
if sys.argv[1] == "stdlib":
    import contextlib, hashlib, importlib.util, json, logging, os, re, struct, threading, traceback, typing
if sys.argv[1] == "after":
    import torch
    torch_there = time.perf_counter()
    import fla.ops.gated_delta_rule
    fla_there = time.perf_counter()
before = time.perf_counter()
import gdn_aot
imported = time.perf_counter()
gdn_aot.install(*sys.argv[2:])
installed = time.perf_counter()
import json
found = {"import_gdn_aot_ms": imported - before, "install_ms": installed - imported}
if sys.argv[1] == "after":
    found |= {"import_torch_ms": torch_there - start, "import_fla_ms": fla_there - torch_there}
print(json.dumps({
    **{name: 1000 * taken for name, taken in found.items()}, "active": gdn_aot.report().active,
    "loaded": [name for name in ("torch", "triton", "click", "zstandard") if name in sys.modules],
}))
"""


@dataclass(frozen=True)
class _Places:
    """Directories of one run."""

    root: Path
    """Also the home of the loader's store."""

    def cache(self, state: str) -> str:
        """Return the Triton cache of a state. It is used where it was made: Triton 3.6 keeps absolute paths in it."""
        return str(self.root / f"triton-{state}")


class Run:
    """One run: state after state, each record kept as soon as it is there.

    Args:
        options: Of the command line.
        places: A directory to work in.
        save: Called with the document after each step.
    """

    def __init__(self, options: Namespace, root: Path, save: Callable[[dict[str, Any]], None]) -> None:
        self._options, self._places, self._save = options, _Places(root), save
        self._wanted = set(options.cases)
        self._start = time.monotonic()
        self._launches: dict[str, Any] = {}
        self._warm_caches: set[str] = set()
        """States whose Triton cache is as the state wants it."""
        self._broken: set[str] = set()
        """States of which a process failed; they are not tried again."""
        self.document: dict[str, Any] = {"records": [], "steps": []}

    def all(self) -> dict[str, Any]:
        """Run everything that is wanted. Returns the document."""
        self._fill_store()
        self._write_configs()
        if "f" in self._wanted:
            self._record_launches()
        if self._wanted & {"a", "b"}:
            for _ in range(self._options.repeat_cold):
                shutil.rmtree(self._places.cache("a"), ignore_errors=True)
                self._leave("a", {})
        if self._wanted & {"c", "steady"}:
            self._leave("c", self._strict())
        if "d" in self._wanted and self._seed():
            self._leave("d", {})
        rounds = max(self._options.repeat, 0)
        slowest = 0.0
        for number in range(rounds):
            begun = time.monotonic()
            if number and self._options.budget and begun - self._start + slowest > self._options.budget:
                self._step("rounds", ok=False, error=f"{rounds - number} of {rounds} left out: no time left")
                break
            self._round(number)
            slowest = max(slowest, time.monotonic() - begun)
            if number == 0:
                self._extras()
        if not rounds:
            self._extras()
        self._step("end", ok=True)
        return self.document

    def _step(self, name: str, **what: Any) -> None:
        elapsed = round(time.monotonic() - self._start, 1)
        self.document["steps"].append({"step": name, "elapsed_s": elapsed, **what})
        verdict = "" if what.get("ok", True) else f": {what.get('error', 'failed')}"
        print(f"[{elapsed:6.1f} s] {name}{verdict}", file=sys.stderr, flush=True)
        self._save(self.document)

    def _measure(self, name: str, tasks: list[Task], **more: Any) -> list[dict[str, Any]]:
        records = [record | more for record in run_together(tasks)] if tasks else []
        self.document["records"] += records
        failed = [f"{record['case']} {record['call']} {record['error']}" for record in records if not record["ok"]]
        for record in records:
            if not record["ok"]:
                self._broken.add(record["case"])
                print(record["stderr"], file=sys.stderr)
        self._step(name, ok=not failed, **({"error": "; ".join(failed)} if failed else {}))
        return records

    def _task(self, case: str, call: str, env: dict[str, str], *, scratch: bool = False, **spec: Any) -> Task:
        common = {"artifact": self._options.artifact, "dry": self._options.dry, "steady": self._options.steady_calls}
        if self._options.dry and spec.get("kind") == "floor":
            env = {**env, "COLD_START_LIBCUDA": self._options.dry}
        home = {"GDN_AOT_HOME": str(self._places.root)}
        seconds = 600.0 if case.endswith("-first") or self._options.dry else 120.0
        full = {"kind": "first", "call": call, **common, **spec}
        return Task(case, call, full, {**home, **env}, scratch=scratch, seconds=seconds)

    def _strict(self) -> dict[str, str]:
        return {"FLA_CACHE_MODE": "strict", "FLA_CONFIG_DIR": str(self._places.root / "fla-configs")}

    def _fill_store(self) -> None:
        code = "import sys, gdn_aot; gdn_aot.install(sys.argv[1]); print(gdn_aot.report().artifacts)"
        done = command(sys.executable, "-c", code, self._options.artifact, env={"GDN_AOT_HOME": str(self._places.root)})
        self._step("fill the store", **done)

    def _write_configs(self) -> None:
        from gdn_aot.artifact.verify import open_artifact

        artifact = open_artifact(self._options.artifact)
        manifest = artifact.manifest
        self.document["artifact"] = {
            "identifier": manifest.identifier,
            "sha256": artifact.sha256,
            "size": artifact.size,
            "dirty": manifest.build.dirty,
            "models": sorted({f"{model.name} tp {model.tp}" for model in manifest.models}),
            "binaries": sum(len(kernel.binaries) for kernel in manifest.kernels),
            "provenance": sorted({choice.provenance for kernel in manifest.kernels for choice in kernel.choices}),
        }
        written = configs.export(manifest, self._places.root / "fla-configs")
        self._step("write FLA configurations", ok=True, **written)

    def _record_launches(self) -> None:
        task = self._task("record", "all", {}, scratch=True, kind="record", loader=True, calls=list(CALLS))
        (record,) = self._measure("record launches for the floor", [task])
        self._launches = record.get("launches", {})
        self.document["used"] = {
            call: {
                "launches": len(launches),
                "kernels": len({launch["kernel"] for launch in launches}),
                "binaries": len({(launch["kernel"], launch["key"]) for launch in launches}),
            }
            for call, launches in self._launches.items()
        }

    def _leave(self, state: str, env: dict[str, str]) -> None:
        """Make both calls in one process, which leaves its cache behind for the processes after it."""
        env = {**env, "TRITON_CACHE_DIR": self._places.cache(state)}
        task = self._task(f"{state}-first", "dense", env, then=["varlen"])
        (record,) = self._measure(f"{state}, first start", [task])
        if record["ok"]:
            self._warm_caches.add(state)

    def _seed(self) -> bool:
        into = self._places.cache("d")
        home = {"GDN_AOT_HOME": str(self._places.root)}
        done = command(
            sys.executable, "-m", "gdn_aot", "seed", self._options.artifact, "--into", into, "--json", env=home
        )
        if done["ok"]:
            told = json.loads(done.pop("stdout"))
            del told["path"]  # a temporary directory
            told["skipped"] = len(told.get("skipped", ()))
            done |= {"seeded": told}
        self._step("gdn-aot seed", **done)
        return bool(done["ok"])

    def _round(self, number: int) -> None:
        names = [
            name for name in WARM if name in self._wanted or (name == "preload-pool" and "preload" in self._wanted)
        ]
        names = [name for name in names if name not in self._broken]
        tasks = [task for name in names for call in CALLS if (task := self._warm(name, call)) is not None]
        random.Random(number).shuffle(tasks)
        for at in range(0, len(tasks), self._options.together):
            part = tasks[at : at + self._options.together]
            self._measure(
                f"round {number + 1}: {', '.join(f'{one.case} {one.call}' for one in part)}", part, round=number
            )

    def _warm(self, state: str, call: str) -> Task | None:
        """Return the process that measures a call in a state, or None if what it needs is missing."""
        if state == "f":
            if call not in self._launches:
                return None
            return self._task(state, call, {}, scratch=True, kind="floor", launches=self._launches[call])
        if state in ("b", "c", "d"):
            made_by = "a" if state == "b" else state
            if made_by not in self._warm_caches:
                return None
            env = self._strict() if state == "c" else {}
            return self._task(state, call, {**env, "TRITON_CACHE_DIR": self._places.cache(made_by)})
        if state == "nocc":
            nothing = self._places.root / "no-compiler"
            nothing.mkdir(exist_ok=True)
            return self._task(state, call, {"PATH": str(nothing), "CC": ""}, scratch=True, loader=True)
        preload = {"preload": self._options.model} if state.startswith("preload") else {}
        return self._task(state, call, {}, scratch=True, loader=True, pool=state == "preload-pool", **preload)

    def _extras(self) -> None:
        if "profile" in self._wanted:
            more = {"kind": "profile", "loader": True, "scratch": True}
            self._measure("profile", [self._task("profile", call, {}, **more) for call in CALLS])
        if "steady" in self._wanted:
            env = {**self._strict(), "TRITON_CACHE_DIR": self._places.cache("c")}
            rounds, shorten = (2, 40) if self._options.dry else (40, 1)
            task = self._task("steady", "all", env, kind="steady", rounds=rounds, shorten=shorten)
            self._measure("steady state", [task])
        if "install" in self._wanted:
            self._install()

    def _install(self) -> None:
        """Time import and install in bare interpreters, one after the other.

        From the store and from the file; from the store where common modules of the standard library are imported, as
        every process has that imported torch; and after the provider was, so that its kernels are seeded at once.
        """
        ways = {"store": ("bare", 9), "file": ("bare", 9), "stdlib": ("stdlib", 9), "after the provider": ("after", 2)}
        if self._options.dry:
            del ways["after the provider"]
        for way, (order, number) in ways.items():
            path = [self._options.artifact] if way == "file" else []
            for _ in range(number):
                with tempfile.TemporaryDirectory() as cache:
                    env = {"GDN_AOT_HOME": str(self._places.root), "TRITON_CACHE_DIR": cache}
                    done = command(sys.executable, "-c", _INSTALL, order, *path, env=env, seconds=120)
                if done["ok"]:
                    done |= json.loads(done.pop("stdout"))
                self.document["records"].append({"case": "install", "call": way, **done})
        self._step("import and install", ok=True)
