"""What ``gdn-aot build`` makes of ``--capture``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gdn_aot.cli._output import note
from gdn_aot.errors import NothingSelectedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gdn_aot.capture.form import Capture
    from gdn_aot.tracing.captured import CapturedKernels

_SHOWN = 12
"""Kernels left out that are named; ``--json`` has all."""


def selected_captures(paths: Sequence[Path], provider: str | None, *, alone: bool) -> CapturedKernels | None:
    """Read captures, take a provider's kernels, or the only one's, out of them, and say which others are left out.

    Raises:
        NothingSelectedError: There is nothing of this provider in them, and nothing else to build.
        UsageError: They are of other versions than those installed, or of several providers.
        VerificationError: A file is no capture.
    """
    if not paths:
        return None
    from gdn_aot.capture.form import load
    from gdn_aot.catalogue.providers import get_provider
    from gdn_aot.tracing.captured import select

    captures = [load(path) for path in paths]
    captured = select(captures, get_provider(provider or _owner(captures)))
    for item in captured.left_out[:_SHOWN]:
        note(f"left out: {item.what}: {item.reason}")
    if len(captured.left_out) > _SHOWN:
        note(f"left out: {len(captured.left_out) - _SHOWN} more; --json lists them")
    if alone and not captured.capture.launches:
        raise NothingSelectedError(
            f"the capture has no kernel of provider {captured.provider}",
            hint="see what was left out, or choose another --provider",
        )
    return captured if captured.capture.launches else None


def _owner(captures: Sequence[Capture]) -> str:
    from gdn_aot.tracing.captured import owners

    found = owners(captures)
    if len(found) > 1:
        raise UsageError(
            f"the capture has kernels of providers {' and '.join(found)}; an artifact holds one provider's",
            hint=f"--provider {found[0]}, then --provider {found[1]}",
        )
    if not found:
        raise NothingSelectedError(
            "no kernel of the capture is of a known provider", hint="gdn-aot providers lists them"
        )
    return found[0]


def captured_archs(captured: CapturedKernels) -> tuple[str, ...]:
    """Return the architectures that were recorded on and can be built for."""
    from gdn_aot.catalogue.targets import all_targets

    known = {target.name for target in all_targets()}
    return tuple(name for name in captured.capture.targets if name in known)
