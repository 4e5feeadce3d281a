"""The cases of ``benchmarks/vllm_gdn.py``: what each process is, with which caches, and how long it takes."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from harness import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SETUP = 75
"""Seconds to unpack the engine, once per machine."""
DEFAULT = ("a", "b", "c", "d", "d-tight")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One process."""

    name: str
    says: str
    seconds: int
    """About how long it takes."""
    warm_up: bool = True
    """vLLM's warm-up with 64 tokens at start."""
    cold: bool = True
    """It starts with empty caches; else with those that the case before it left."""
    artifact: str = ""
    """Which artifact is served: ``artifact``, ``captured`` or none."""
    leave_mib: int = 0
    """MiB left free on the card after the engine is ready; 0 for all."""
    record: bool = False
    """It runs under ``gdn-aot capture``, with traffic of many lengths and batches."""
    lengths: tuple[int, ...] = (20, 46, 1000, 8000)
    repeat: int = 3
    prefill: tuple[int, ...] = (2048, 8192)
    env: dict[str, str] = field(default_factory=dict)


_TIGHT: dict[str, Any] = {"warm_up": False, "leave_mib": 300, "lengths": (20, 46), "repeat": 1, "prefill": ()}
"""As vLLM was before it had a warm-up, on a card that the KV cache has filled."""
_CAPTURED: dict[str, Any] = {"artifact": "captured", "lengths": (50, 20, 46, 1000, 8000)}
_CASES = (
    Case(name="a", says="before the warm-up: none, empty caches, 300 MiB left", seconds=70, **_TIGHT),
    Case(name="b", says="warm-up with 64 tokens, empty caches", seconds=165),
    Case(
        name="c", says="the same with the caches that b left", seconds=50, cold=False,
        env={"TRITON_CACHE_AUTOTUNING": "1"},
    ),
    Case(name="d", says="gdn-aot, empty caches", seconds=75, artifact="artifact"),
    Case(
        name="d-tight", says="gdn-aot, no warm-up, empty caches, 300 MiB left", seconds=60, artifact="artifact",
        **_TIGHT,
    ),
    Case(name="e", says="gdn-aot with a capture of this deployment, empty caches", seconds=60, **_CAPTURED),
    Case(
        name="e-loaded", says="the same with all of PyTorch's kernels loaded at start", seconds=75,
        env={"CUDA_MODULE_LOADING": "EAGER"}, **_CAPTURED,
    ),
    Case(
        name="capture", says="recorded: warm-up, many lengths and batches", seconds=240, record=True,
        lengths=(50, 20, 46, 1000, 8000),
    ),
)  # fmt: skip
CASES = {case.name: case for case in _CASES}


@dataclass(frozen=True, kw_only=True)
class Places:
    """Files and folders of a run."""

    engine: Path
    """The folder with ``parts/`` and ``model/``."""
    unpacked: Path
    work: Path
    """Caches, specifications and records of the processes."""
    out: Path
    artifacts: dict[str, Path | None]
    """Those that cases may be served from, by the value of `Case.artifact`."""


def specification(case: Case, places: Places) -> dict[str, Any]:
    """Return what `vllm_gdn.engine` is told."""
    return {**asdict(case), "model": str(places.engine / "model"), "out": str(places.work / f"{case.name}.json")}


def environment(case: Case, places: Places) -> dict[str, str]:
    """Return the variables of a case beyond those of this process."""
    caches = {"TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor", "VLLM_CACHE_ROOT": "vllm"}
    served = places.artifacts.get(case.artifact)
    ours = {"GDN_AOT_ARTIFACT": str(served), "GDN_AOT_LOG": "info"} if served else {"GDN_AOT": "0"}
    return {
        "PYTHONPATH": f"{places.work / 'site'}:{places.unpacked}",
        "PYTHONUNBUFFERED": "1",
        "GDN_AOT_HOME": str(places.work / "home"),
        **{name: str(places.work / "caches" / folder) for name, folder in caches.items()},
        **ours,
        **case.env,
    }


def command(case: Case, places: Places) -> list[str]:
    """Return the command line of a case."""
    program, spec = ROOT / "benchmarks/vllm_gdn/engine.py", places.work / f"{case.name}.spec.json"
    engine = [sys.executable, "-W", "ignore", str(program), str(spec)]
    if not case.record:
        return engine
    output = places.out.with_name("capture.json")
    return [sys.executable, "-m", "gdn_aot", "capture", "-o", str(output), "--", *engine]


def seconds(cases: list[Case]) -> int:
    """Return about how long cases take on a machine that has nothing yet."""
    return SETUP + sum(case.seconds for case in cases)
