"""A process of its own for each scenario, with a stand-in for the driver in it."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_cuda
import pytest
from builds import Built
from helpers import ROOT, python
from launching import PRELUDE as LOADER_PRELUDE
from store_fixtures import *  # noqa: F403

PRELUDE = """
import json, os, sys, threading
from gdn_aot.triton_internals import _launch

class Tensor:
    def __init__(self, address):
        self.address = address
    def data_ptr(self):
        if isinstance(self.address, Exception):
            raise self.address
        return self.address

def make(kinds, num_warps=4, num_ctas=1, shared=0, cooperative=False, pdl=False):
    return _launch.make_launcher(kinds, num_warps, num_ctas, shared, cooperative, pdl)

def call(launcher, *args, grid=(1, 1, 1), stream=0, function=0x5000, metadata=None, enter=None, leave=None):
    return launcher(*grid, stream, function, None, metadata, enter, leave, *args)

def error(function, /, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"

"""


@dataclass(frozen=True)
class Outcome:
    """What a scenario printed, and the driver calls it made."""

    result: Any
    calls: list[dict[str, Any]]

    def named(self, *names: str) -> list[dict[str, Any]]:
        return [call for call in self.calls if call["call"] in names]

    @property
    def launches(self) -> list[dict[str, Any]]:
        return self.named("cuLaunchKernelEx", "cuLaunchKernel")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the stand-in for ``libcuda.so.1``."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc, which builds the stand-in for the driver, is not installed")
    return fake_cuda.build(tmp_path_factory.mktemp("cuda"))


@pytest.fixture
def play(library: Path, tmp_path: Path) -> Any:
    """Run code after ``PRELUDE``; settings are those of `fake_cuda.environment`."""

    def run(code: str, *args: str, cuda: Path = library, **settings: str) -> Outcome:
        log = tmp_path / "calls.jsonl"
        log.unlink(missing_ok=True)
        extra = fake_cuda.environment(cuda, log, **settings)
        return Outcome(python(PRELUDE + code, *args, home=tmp_path, extra=extra), fake_cuda.read_log(log))

    return run


@pytest.fixture
def serve(sm_90: Built, tmp_path: Path) -> Any:
    """Run code in a process of its own that may serve the sm_90 artifact; return what ``done()`` printed."""

    def serve(code: str, site: Path | None = None, **extra: str) -> Any:
        more = {"TRITON_CACHE_DIR": str(tmp_path / "triton"), **extra}
        if site:
            more["PYTHONPATH"] = os.pathsep.join(map(str, (site, ROOT)))
        return python(LOADER_PRELUDE + code, sm_90.path, home=tmp_path / "home", extra=more)

    return serve
