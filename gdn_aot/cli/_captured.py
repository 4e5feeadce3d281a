"""What ``gdn-aot build`` makes of ``--capture``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gdn_aot.cli._output import note
from gdn_aot.errors import NothingSelectedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gdn_aot.build.captured import CapturedKernels
    from gdn_aot.capture.form import Capture
    from gdn_aot.providers import ProviderInfo

_SHOWN = 12
"""Kernels left out that are named; ``--json`` has all."""


def load_capture(path: Path) -> Capture:
    """Read a capture file."""
    from gdn_aot.capture.parse import load

    return load(path)


def captured_provider(captures: Sequence[Capture]) -> str:
    """Return the provider whose kernels captures have.

    Raises:
        UsageError: They have kernels of several.
        NothingSelectedError: Of none.
    """
    from gdn_aot.build.captured import owners

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


def select_captured(captures: Sequence[Capture], provider: ProviderInfo, *, alone: bool) -> CapturedKernels | None:
    """Return a provider's kernels of captures, or None without a capture; say which others are left out.

    Args:
        captures: What ``--capture`` named.
        provider: Whose kernels are built.
        alone: Nothing but the captures is to be built.

    Raises:
        NothingSelectedError: There is nothing of this provider in them, and nothing else to build.
        UsageError: They are of other versions than those installed.
    """
    if not captures:
        return None
    from gdn_aot.build.captured import select

    captured = select(captures, provider)
    for item in captured.left_out[:_SHOWN]:
        note(f"left out: {item.what}: {item.reason}")
    if len(captured.left_out) > _SHOWN:
        note(f"left out: {len(captured.left_out) - _SHOWN} more; --json lists them")
    if captured.capture.launches:
        return captured
    if alone:
        raise NothingSelectedError(
            f"the capture has no kernel of provider {provider.name}",
            hint="see what was left out, or choose another --provider",
        )
    return None


def captured_archs(captured: CapturedKernels) -> tuple[str, ...]:
    """Return the architectures that were recorded on and can be built for."""
    from gdn_aot.targets import all_targets

    known = {target.name for target in all_targets()}
    return tuple(name for name in captured.capture.targets if name in known)
