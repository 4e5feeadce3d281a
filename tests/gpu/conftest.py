"""The artifact under test, and processes to test it in.

Everything that touches the device runs in a process of its own (`gpu.programs`), with an empty Triton cache. What a
test measures goes to ``$GDN_AOT_TEST_OUT/MODULE.json`` if that is set. A copy of the tree without its history takes the
commit from ``$GDN_AOT_TEST_COMMIT``.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, environment, python

from gdn_aot.artifact.manifest import Manifest
from gdn_aot.artifact.verify import open_artifact
from gdn_aot.building.pack import own_commit

_PASSED_ON = ("TRITON_LIBCUDA_PATH", "TRITON_PTXAS_PATH")
"""Settings of the machine, not of a test."""

_MACHINE = """
import json, importlib.metadata as metadata, platform, shutil, subprocess, torch
names = ("torch", "triton", "fla-core", "transformers")
versions = {}
for name in names:
    try:
        versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        versions[name] = None
smi = shutil.which("nvidia-smi")
query = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
driver = subprocess.run(query, capture_output=True, text=True).stdout.split() if smi else []
print(json.dumps({
    "devices": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
    "capability": torch.cuda.get_device_capability(),
    "memory": torch.cuda.get_device_properties(0).total_memory,
    "driver": driver[0] if driver else None,
    "python": platform.python_version(),
    "versions": versions,
}))
"""


TRAINING = "gdn-aot build --arch ARCH --mode train --model kimi-linear-48b-a3b --tp 1,8 --workload '*kda-*train' -o DIR"
"""Builds the artifact of ``GDN_AOT_TEST_ARTIFACT_TRAIN``."""


def build_command(arch: str = "sm_90") -> str:
    """Return the command that builds the artifact under test."""
    return (
        f"gdn-aot build --arch {arch} --provider fla --tp 1,2 --model qwen3.5-9b "
        "--model kimi-linear-48b-a3b --shape heads=32,v_heads=32,k_dim=128,v_dim=128,dtype=bf16 -o DIR"
    )


Program = Callable[..., dict[str, Any]]
"""Runs a module of `gpu.programs` in a process of its own and returns its answer."""
Record = Callable[..., None]
"""Writes what a test measured."""


@dataclass(frozen=True)
class Loaded:
    """The artifact under test."""

    path: Path
    manifest: Manifest

    def has_shape(self, heads: int, v_heads: int) -> bool:
        shapes = {(model.heads, model.v_heads, model.k_dim, model.v_dim, model.dtype) for model in self.manifest.models}
        return (heads, v_heads, 128, 128, "bf16") in shapes


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Device, driver and versions."""
    found: dict[str, Any] = python(_MACHINE, home=tmp_path_factory.mktemp("machine"))
    return found


@pytest.fixture(scope="session")
def artifact(machine: dict[str, Any]) -> Loaded:
    """The artifact that ``GDN_AOT_TEST_ARTIFACT`` names."""
    arch = "sm_{}{}".format(*machine["capability"])
    name = os.environ.get("GDN_AOT_TEST_ARTIFACT")
    if not name:
        pytest.skip(f"GDN_AOT_TEST_ARTIFACT is not set; make the file with: {build_command(arch)}")
    tested = Loaded(Path(name).resolve(), open_artifact(name).manifest)
    target = tested.manifest.target.name
    assert target == arch, f"{name} is for {target}; for this device: {build_command(arch)}"
    assert tested.has_shape(16, 32), f"{name} lacks Qwen3.5-9B; make it with: {build_command(arch)}"
    return tested


@pytest.fixture(scope="session")
def store(artifact: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``GDN_AOT_HOME`` that the artifact is unpacked in."""
    home = tmp_path_factory.mktemp("store")
    code = "import gdn_aot, json, sys; gdn_aot.install(sys.argv[1], strict=True); print(json.dumps(True))"
    python(code, artifact.path, home=home)
    return home


def run_program(
    name: str,
    asked: dict[str, object],
    home: Path,
    place: Path,
    *,
    extra: dict[str, str] | None = None,
    without: Sequence[str] = (),
    timeout: float = 300,
) -> dict[str, Any]:
    """Run a module of `gpu.programs` in a process of its own, in a folder and with caches there; return its answer."""
    caches = {"TRITON_CACHE_DIR": str(place / "triton"), "TORCHINDUCTOR_CACHE_DIR": str(place / "inductor")}
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    variables = environment(home, {**passed_on, **caches, **(extra or {})})
    places = [str(ROOT / "tests"), *variables["PYTHONPATH"].split(os.pathsep)]
    variables["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, places))  # the process runs elsewhere
    for variable in without:
        variables.pop(variable, None)
    done = subprocess.run(
        [sys.executable, "-m", f"gpu.programs.{name}", json.dumps(asked)],
        env=variables,
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.fixture(scope="session")
def program(store: Path, artifact: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Run programs with the unpacked artifact and each with a Triton cache of its own."""

    def run(
        name: str,
        *,
        extra: dict[str, str] | None = None,
        without: Sequence[str] = (),
        timeout: float = 300,
        **options: object,
    ) -> dict[str, Any]:
        place, asked = tmp_path_factory.mktemp(name), {"artifact": str(artifact.path), **options}
        return run_program(name, asked, store, place, extra=extra, without=without, timeout=timeout)

    return run


def sizes_of(manifest: Manifest, family: str) -> dict[str, list[int]]:
    """Return the models of a family that an artifact has, each with its tensor-parallel sizes."""
    found: dict[str, list[int]] = {}
    for row in manifest.models:
        if row.family == family:
            found.setdefault(row.name, []).append(row.tp)
    return found


def provenance(artifact: str | Path) -> dict[str, str | None]:
    """Return the SHA-256 of an artifact, and the commit of this checkout: ``$GDN_AOT_TEST_COMMIT``, else its own."""
    digest = hashlib.sha256(Path(artifact).read_bytes()).hexdigest()
    return {"artifact_sha256": digest, "commit": os.environ.get("GDN_AOT_TEST_COMMIT") or own_commit()[0]}


@pytest.fixture
def record(request: pytest.FixtureRequest, machine: dict[str, Any]) -> Record:
    """Write what the test measured to its module's file."""

    def write(**measured: object) -> None:
        place = os.environ.get("GDN_AOT_TEST_OUT")
        if not place:
            return
        file = Path(place) / f"{request.node.path.stem}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        document = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        document |= {"machine": machine, request.node.name: measured}
        file.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    return write
