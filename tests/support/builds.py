"""Artifacts built once per session with the real provider, compiler and assembler."""

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from helpers import gdn_aot, python

from gdn_aot.artifact.manifest import Manifest, PackedKernel
from gdn_aot.artifact.verify import Artifact, open_artifact

PREFILL_AND_DECODE = (
    "--workload", "transformers-*", "--workload", "gated-norm", "--max-tokens", 8192, "--max-batch", 4,
)  # fmt: skip
"""What one model's calls from transformers need, small enough for a test."""


@dataclass(frozen=True)
class Built:
    """What one build command made."""

    home: Path
    arguments: tuple[object, ...]
    document: dict[str, Any]
    err: str

    @property
    def row(self) -> dict[str, Any]:
        """The only artifact of the document."""
        (row,) = self.document["artifacts"]
        assert isinstance(row, dict)
        return row

    @property
    def path(self) -> Path:
        return Path(self.row["path"])

    @cached_property
    def artifact(self) -> Artifact:
        return open_artifact(self.path)

    @property
    def manifest(self) -> Manifest:
        return self.artifact.manifest

    def kernel(self, name: str) -> PackedKernel:
        (found,) = (kernel for kernel in self.manifest.kernels if kernel.qualname == name)
        return found


def make(home: Path, output: Path, *arguments: object) -> Built:
    """Build with the cache of ``home``, one process at a time: the next finds what the first compiled."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = gdn_aot("build", *arguments, "-o", output, "--json", home=home)
    return Built(home, arguments, done.json, done.err)


_OFFERED = """
import importlib, json, sys
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target(sys.argv[1]))
from triton.runtime.autotuner import Autotuner
offered = {}
for name in sys.argv[2:]:
    found = importlib.import_module(name.partition(":")[0])
    for part in name.partition(":")[2].split("."):
        found = getattr(found, part)
    while found is not None and not isinstance(found, Autotuner):
        found = getattr(found, "fn", None)
    offered[name] = [
        [dict(config.kwargs), config.num_warps, config.num_stages, config.num_ctas, config.maxnreg]
        for config in (found.configs if found else [])
    ]
print(json.dumps(offered))
"""


def offered(arch: str, *kernels: str, home: Path) -> dict[str, list[Any]]:
    """The provider's own candidates of each kernel on a target: kwargs, warps, stages, CTAs, registers."""
    found: dict[str, list[Any]] = python(_OFFERED, arch, *kernels, home=home)
    return found


@pytest.fixture(scope="session")
def session_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``GDN_AOT_HOME`` that the builds of the session share, in all processes of it.

    ``GDN_AOT_TEST_CACHE`` keeps it for the next session: results are kept by content. Folders of tests have a ``home``.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return Path(os.environ.get("GDN_AOT_TEST_CACHE") or shared / "home").absolute()


@pytest.fixture(scope="session")
def build(session_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Built]:
    """Build with the session's cache into a new directory."""

    def build(*arguments: object) -> Built:
        return make(session_home, tmp_path_factory.mktemp("out"), *arguments)

    return build


@pytest.fixture(scope="session")
def sm_120(build: Callable[..., Built]) -> Built:
    """What is built of one model unless more is asked for."""
    return build("--arch", "sm_120", "--model", "qwen3.5-9b")


@pytest.fixture(scope="session")
def sm_90(build: Callable[..., Built]) -> Built:
    return build("--arch", "sm_90", "--model", "qwen3.5-9b", *PREFILL_AND_DECODE)


@pytest.fixture(scope="session")
def sm_70(build: Callable[..., Built]) -> Built:
    fp16 = ("--arch", "sm_70", "--model", "qwen3.5-9b", "--dtype", "fp16")
    return build(*fp16, *PREFILL_AND_DECODE)


@pytest.fixture(scope="session")
def decode(build: Callable[..., Built]) -> Built:
    """The smallest artifact with real kernels."""
    return build("--arch", "sm_120", "--model", "qwen3.5-9b", "--workload", "transformers-decode")


@pytest.fixture(params=["sm_120", "sm_90"])
def built(request: pytest.FixtureRequest) -> Built:
    made: Built = request.getfixturevalue(request.param)
    return made
