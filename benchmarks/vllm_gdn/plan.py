"""The cases of ``benchmarks/vllm_gdn.py``: what each process is, with which caches, and how long it takes."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One process."""

    name: str
    says: str
    warm_up: bool = True
    """vLLM's warm-up with 64 tokens at start."""
    cold: bool = True
    """It starts with empty caches; else with those that the case before it left."""
    artifact: str = ""
    """Which artifact is served: ``artifact``, ``captured`` or none."""
    leave_mib: int = 0
    """MiB left free on the card after the engine is ready; 0 for all."""
    record: bool = False
    """It runs under ``gdn-aot capture``."""
    lengths: tuple[int, ...] = (20, 46, 1000, 8000)
    repeat: int = 3
    prefill: tuple[int, ...] = (2048, 8192)
    traffic: bool = False
    eager: bool = True
    gpu_memory: float = 0.5
    seconds: int = 60
    """About how long it takes."""
    env: dict[str, str] = field(default_factory=dict)


CASES = {
    case.name: case
    for case in (
        Case(
            name="a",
            says="before the warm-up: none, empty caches, 300 MiB left",
            warm_up=False,
            leave_mib=300,
            lengths=(20, 46),
            repeat=1,
            prefill=(),
            seconds=70,
        ),
        Case(name="b", says="warm-up with 64 tokens, empty caches", seconds=165),
        Case(
            name="c",
            says="the same with the caches that b left",
            cold=False,
            env={"TRITON_CACHE_AUTOTUNING": "1"},
            seconds=50,
        ),
        Case(name="d", says="gdn-aot, empty caches", artifact="artifact", seconds=75),
        Case(
            name="d-tight",
            says="gdn-aot, no warm-up, empty caches, 300 MiB left",
            artifact="artifact",
            warm_up=False,
            leave_mib=300,
            lengths=(20, 46),
            repeat=1,
            prefill=(),
            seconds=60,
        ),
        Case(
            name="e",
            says="gdn-aot with a capture of this deployment, empty caches",
            artifact="captured",
            lengths=(50, 20, 46, 1000, 8000),
            seconds=60,
        ),
        Case(
            name="e-loaded",
            says="the same with all of PyTorch's kernels loaded at start",
            artifact="captured",
            lengths=(50, 20, 46, 1000, 8000),
            env={"CUDA_MODULE_LOADING": "EAGER"},
            seconds=75,
        ),
        Case(
            name="capture",
            says="recorded: warm-up, many lengths and batches",
            record=True,
            lengths=(50, 20, 46, 1000, 8000),
            traffic=True,
            seconds=240,
        ),
    )
}
DEFAULT = ("a", "b", "c", "d", "d-tight")
SETUP = 75
"""Seconds to unpack the engine, once per machine."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Files and folders of a run."""

    engine: Path
    """The folder with ``parts/`` and ``model/``."""
    unpacked: Path
    work: Path
    """Caches, specifications and records of the processes."""
    out: Path
    artifact: Path | None
    captured: Path | None


def specification(case: Case, places: Places) -> dict[str, Any]:
    """Return what `vllm_gdn.engine` is told."""
    return {**asdict(case), "model": str(places.engine / "model"), "out": str(places.work / f"{case.name}.json")}


def environment(case: Case, places: Places) -> dict[str, str]:
    """Return the variables of a case beyond those of this process."""
    caches = {
        "TRITON_CACHE_DIR": "triton",
        "TORCHINDUCTOR_CACHE_DIR": "inductor",
        "VLLM_CACHE_ROOT": "vllm",
    }
    paths = [places.work / "site", ROOT, places.unpacked]
    served = {"artifact": places.artifact, "captured": places.captured}.get(case.artifact)
    ours = {"GDN_AOT_ARTIFACT": str(served), "GDN_AOT_LOG": "info"} if served else {"GDN_AOT": "0"}
    return {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONUNBUFFERED": "1",
        "GDN_AOT_HOME": str(places.work / "home"),
        **{name: str(places.work / "caches" / folder) for name, folder in caches.items()},
        **ours,
        **case.env,
    }


def command(case: Case, places: Places, spec: Path) -> list[str]:
    """Return the command line of a case."""
    engine = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks/vllm_gdn/engine.py"), str(spec)]
    if not case.record:
        return engine
    output = places.out.with_name("capture.json")
    return [sys.executable, "-m", "gdn_aot", "capture", "-o", str(output), "--", *engine]


def needs(case: Case) -> str:
    """Return the option that a case needs a file of, or nothing."""
    return {"artifact": "--artifact", "captured": "--captured"}.get(case.artifact, "")


def seconds(cases: list[Case]) -> int:
    """Return about how long cases take on a machine that has nothing yet."""
    return SETUP + sum(case.seconds for case in cases)
