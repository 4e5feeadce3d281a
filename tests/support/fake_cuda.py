"""A stand-in for NVIDIA's driver library: build it, choose how it behaves, read what was called.

The library reads these environment variables at each call:

* ``FAKE_CUDA_LOG``: the file that calls are appended to;
* ``FAKE_CUDA_FAIL``: ``cuModuleLoadData=200,cuInit=100``, functions and the ``CUresult`` they fail with;
* ``FAKE_CUDA_PARAMETERS``: sizes in bytes of the kernel's parameters that launches are to log, ``8,8,4``, or
  ``name:8,8,4;other:8`` by the name of the kernel;
* ``FAKE_CUDA_DEVICE``: ``97=49152,version=12080``, device attributes by number and the driver's version, where they
  are to differ from an H100 with CUDA 13.0;
* ``FAKE_CUDA_POINTERS``: ``host=0x1000,offset=64``, the one address that is not device memory, and what is added to
  the others. Without it every address is device memory, so that tensors on the CPU will do.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("fake_cuda.c")
FLAGS = ("-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread", "-Wl,-soname,libcuda.so.1")


def build(folder: Path, *defines: str) -> Path:
    """Compile ``libcuda.so.1`` into ``folder`` and return it, the value for ``TRITON_LIBCUDA_PATH``.

    ``FAKE_CUDA_OLD`` leaves ``cuLaunchKernelEx`` out; ``FAKE_CUDA_QUIET`` makes it fast and writes no log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = [*FLAGS, *(f"-D{name}" for name in defines), "-o", str(folder / "libcuda.so.1")]
    subprocess.run(["gcc", str(SOURCE), *options], check=True)
    return folder


def environment(library: Path, log: Path, **settings: str) -> dict[str, str]:
    """Return the environment variables for a process; ``fail="..."`` becomes ``FAKE_CUDA_FAIL``, and so on."""
    named = {f"FAKE_CUDA_{name.upper()}": value for name, value in settings.items()}
    return {"TRITON_LIBCUDA_PATH": str(library), "FAKE_CUDA_LOG": str(log), **named}


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the calls in order: ``call``, ``process``, ``thread``, and what the function was given."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
