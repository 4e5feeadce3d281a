"""Ahead-of-time compiled and tuned Triton kernels for Gated Delta Net models.

Importing this package loads neither torch nor triton. In a serving process, call `install` before or after the
provider's kernels are imported, or ``import gdn_aot.auto``.
"""

from __future__ import annotations

from gdn_aot._version import __version__

TYPE_CHECKING = False  # as in typing, which takes longer to import than all of this
if TYPE_CHECKING:
    from gdn_aot.serving.report import Report

__all__ = ["__version__", "install", "preload", "report"]


def install(artifact: str | None = None, *, strict: bool = False, on_miss: str = "nearest") -> None:
    """Serve the kernels of installed artifacts in this process; see `gdn_aot.serving.loader.install`."""
    from gdn_aot.serving import loader

    loader.install(artifact, strict=strict, on_miss=on_miss)


def preload(model: str | None = None, tp: int | None = None, device: int | None = None, tokens: int = 0) -> int:
    """Load a model's kernels onto a device; see `gdn_aot.serving.preload.preload`."""
    from gdn_aot.serving.preload import preload

    return preload(model, tp, device, tokens)


def report() -> Report:
    """Return which kernels were seeded, answered and missed in this process; see `gdn_aot.serving.loader.report`."""
    from gdn_aot.serving import loader

    return loader.report()
