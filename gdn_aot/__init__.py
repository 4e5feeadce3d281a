"""Ahead-of-time compiled and tuned Triton kernels for Gated Delta Net models.

Importing this package loads neither torch nor triton. `install` is what a serving process calls.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gdn_aot._version import __version__

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["__version__", "install", "preload", "report"]


def _loader() -> Any:
    return importlib.import_module("gdn_aot.runtime.loader")


def install(
    artifact: str | PathLike[str] | None = None, *, strict: bool = False, on_miss: str = "nearest"
) -> Any:
    """Seed this process's Triton kernels from an artifact, now or when their modules are imported.

    Args:
        artifact: One artifact file or a directory of them; by default what the store has for this process.
        strict: Turn any compile or benchmark of a covered kernel into an error.
        on_miss: What answers an autotune key that the artifact lacks: ``nearest``, ``tune`` or ``error``.

    Returns:
        The loader's report at this moment, as `report` gives it.
    """
    return _loader().install(artifact=artifact, strict=strict, on_miss=on_miss)


def preload(model: str | None = None, tp: int = 1, device: int | None = None) -> Any:
    """Load the binaries of a model onto a device, so that none is loaded once memory is full.

    Args:
        model: A name of the catalogue; by default all models of the artifact.
        tp: Tensor-parallel size of the deployment.
        device: CUDA device index; by default the current one.

    Returns:
        The bytes of device memory that this took.
    """
    return _loader().preload(model=model, tp=tp, device=device)


def report() -> Any:
    """Return what was seeded, hit and missed in this process, and why."""
    return _loader().report()
