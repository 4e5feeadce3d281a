"""The cases of ``benchmarks/vllm_gdn.py``: what each process is, with which caches, and how long it takes."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import packed
from harness import ROOT

from gdn_aot.artifact.verify import open_artifact

if TYPE_CHECKING:
    from pathlib import Path

    from gdn_aot.deployment import Built

SETUP = 75
"""Seconds to unpack the engine, once per machine."""
SEEDING = 25
"""Seconds to write an artifact into a Triton cache."""
DEFAULT = ("a", "b", "c", "d", "d-tight")
CACHES = ("triton", "inductor", "vllm", "home")
"""What a process may find of one before it: Triton's cache, Inductor's, vLLM's, and its user's directory."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One process."""

    name: str
    says: str
    seconds: int
    """About how long it takes."""
    warm_up: bool = True
    """vLLM's warm-up with 64 tokens at start."""
    graphs: bool = False
    """vLLM's default mode, with torch.compile and CUDA graphs; else eager."""
    caches: str = "caches"
    """The folder of its caches; cases with the same find what those before them left, as far as they keep it."""
    keeps: tuple[str, ...] = ()
    """Which of `CACHES` it finds as they are there; the others are emptied before it."""
    seeded: str = ""
    """The artifact that is written into the Triton cache, without the loader, before any process is measured."""
    artifacts: tuple[str, ...] = ()
    """Which are served: of ``artifact``, ``captured`` and ``deployment``."""
    leave_mib: int = 0
    """MiB left free on the card after the engine is ready; 0 for all."""
    record: bool = False
    """It runs under ``gdn-aot capture``."""
    traffic: bool = False
    """Traffic of many lengths and batches follows the requests."""
    lengths: tuple[int, ...] = (20, 46, 1000, 8000)
    repeat: int = 3
    prefill: tuple[int, ...] = (2048, 8192)
    env: dict[str, str] = field(default_factory=dict)


_TIGHT: dict[str, Any] = {"warm_up": False, "leave_mib": 300, "lengths": (20, 46), "repeat": 1, "prefill": ()}
"""As vLLM was before it had a warm-up, on a card that the KV cache has filled."""
_CAPTURED: dict[str, Any] = {"artifacts": ("captured",), "lengths": (50, 20, 46, 1000, 8000)}
_REQUESTS: dict[str, Any] = {"lengths": (50, 20, 46, 1000, 8000), "repeat": 6, "prefill": ()}
_FIRST = {"GDN_AOT_FIRST_REQUEST": "1", "GDN_AOT_START_REPORT": "1"}
_GRAPHS: dict[str, Any] = {"graphs": True, **_REQUESTS}
_BOTH = ("deployment", "captured")
KINDS = {
    "drafts": "drafts by the model's own layers (MTP) and prefix caching",
    "ngram": "drafts by the prompt",
    "prefix": "prefix caching",
    "adapters": "LoRA",
    "fp8": "weights quantized to FP8 at load",
    "fp8-blocks": "an FP8 checkpoint with blocks of scales",
    "v2": "the second model runner",
}
"""Deployments of other kinds, which ``kinds/`` describes: (f) with each, the engine started as its artifact has it."""
_CASES = (
    Case(name="a", says="before the warm-up: none, empty caches, 300 MiB left", seconds=70, **_TIGHT),
    Case(name="b", says="warm-up with 64 tokens, empty caches", seconds=165),
    Case(
        name="c", says="the same with the caches that b left", seconds=50, keeps=CACHES,
        env={"TRITON_CACHE_AUTOTUNING": "1"},
    ),
    Case(name="d", says="gdn-aot, empty caches", seconds=75, artifacts=("artifact",)),
    Case(
        name="d-tight", says="gdn-aot, no warm-up, empty caches, 300 MiB left", seconds=60, artifacts=("artifact",),
        **_TIGHT,
    ),
    Case(name="e", says="gdn-aot with a capture of this deployment, empty caches", seconds=60, **_CAPTURED),
    Case(
        name="e-loaded", says="the same with all of PyTorch's kernels loaded at start", seconds=75,
        env={"CUDA_MODULE_LOADING": "EAGER"}, **_CAPTURED,
    ),
    Case(
        name="capture", says="recorded in eager mode; its caches had what can be seeded of the deployment's",
        seconds=60, record=True, traffic=True, caches="recorded", keeps=CACHES, seeded="deployment",
        lengths=(50, 20, 46, 1000, 8000),
    ),
    Case(
        name="f", says="gdn-aot with the deployment's artifact and its first request answered, empty caches",
        seconds=45, artifacts=("deployment",), caches="f", env=_FIRST, **_REQUESTS,
    ),
    Case(
        name="capture-graphs", says="recorded with CUDA graphs; its caches had what can be seeded of the deployment's",
        seconds=130, record=True, traffic=True, caches="kept", keeps=CACHES, seeded="deployment",
        **{**_GRAPHS, "repeat": 1},
    ),
    Case(
        name="warm", says="vLLM alone with the caches that capture-graphs left", seconds=45, caches="kept",
        keeps=CACHES, **_REQUESTS,
    ),
    Case(
        name="warm-graphs", says="the same with CUDA graphs", seconds=50, caches="kept", keeps=CACHES, **_GRAPHS,
    ),
    Case(
        name="e-graphs-packed", says="(e-graphs) with that cache out of the capture's artifact",
        seconds=55, artifacts=_BOTH, caches="kept", env={**_FIRST, "GDN_AOT_COMPILE_CACHE": "1"}, **_GRAPHS,
    ),
    Case(
        name="e-graphs", says="gdn-aot with the deployment's artifact and a capture's, CUDA graphs, empty caches",
        seconds=80, artifacts=_BOTH, caches="e", env=_FIRST, **_GRAPHS,
    ),
    Case(
        name="f-graphs", says="gdn-aot with the deployment's artifact alone, CUDA graphs, empty caches",
        seconds=85, artifacts=("deployment",), caches="f", env=_FIRST, **_GRAPHS,
    ),
    Case(
        name="f-later", says="(f) without the first request answered", seconds=40, artifacts=("deployment",),
        caches="f", **_REQUESTS,
    ),
    *(
        Case(
            name=f"f-{kind}", says=f"(f) of a deployment with {says}", seconds=30, traffic=True, artifacts=(kind,),
            caches="f", env=_FIRST, lengths=(50, 20, 1000, 8000), repeat=3, prefill=(),
        )
        for kind, says in KINDS.items()
    ),
)  # fmt: skip
CASES = {case.name: case for case in _CASES}


@dataclass(frozen=True, kw_only=True)
class Places(packed.Places):
    """Files and folders of a run."""

    out: Path
    artifacts: dict[str, Path | None]
    """Those that cases may be served from, by their names in `Case.artifacts`."""


def described(case: Case, places: Places) -> Built | None:
    """Return the deployment that the artifact of a case of another kind was built for."""
    path = places.artifacts.get(case.artifacts[0]) if case.artifacts and case.artifacts[0] in KINDS else None
    return open_artifact(path).manifest.deployment if path else None


def specification(case: Case, places: Places) -> dict[str, Any]:
    """Return what `vllm_gdn.engine` is told, beside what the case is: options of the engine, and folders."""
    options: dict[str, Any] = {"enforce_eager": not case.graphs}
    model = places.engine / "model"
    if found := described(case, places):
        options = {name: _option(value) for name, value in found.engine}
        model = places.work / f"{case.name}.model"
        model.mkdir(exist_ok=True)
        (model / "config.json").write_text(found.config)
    places_of = {"model": str(model), "out": str(places.work / f"{case.name}.json")}
    return {**asdict(case), "engine": options, **places_of}


def _option(value: Any) -> Any:
    """Return an option as vLLM takes it: tables are JSON in a manifest."""
    return json.loads(value) if isinstance(value, str) and value.startswith("{") else value


def environment(case: Case, places: Places) -> dict[str, str]:
    """Return the variables of a case beyond those of this process."""
    variables = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "VLLM_CACHE_ROOT", "HOME")
    served = [str(path) for name in case.artifacts if (path := places.artifacts.get(name))]
    if len(served) > 1:  # a directory of them, which `fill` makes
        served = [str(places.work / f"{case.name}.artifacts")]
    ours = {"GDN_AOT_ARTIFACT": served[0], "GDN_AOT_LOG": "info"} if served else {"GDN_AOT": "0"}
    return {
        "PYTHONPATH": f"{places.work / 'site'}:{places.unpacked}",
        "PYTHONUNBUFFERED": "1",
        "GDN_AOT_HOME": str(places.work / "home"),
        **{name: str(places.work / case.caches / cache) for name, cache in zip(variables, CACHES, strict=True)},
        **ours,
        **case.env,
        **dict(found.environment if (found := described(case, places)) else ()),
    }


def fill(case: Case, places: Places) -> None:
    """Make the folders that a case is to find: its caches, and its artifacts where they are several."""
    for cache in CACHES:
        folder = places.work / case.caches / cache
        if cache not in case.keeps:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    if len(case.artifacts) > 1:
        folder = places.work / f"{case.name}.artifacts"
        folder.mkdir(exist_ok=True)
        for name in case.artifacts:
            shutil.copy(places.artifacts[name] or "", folder)


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
    return SETUP + sum(case.seconds + bool(case.seeded) * SEEDING for case in cases)
