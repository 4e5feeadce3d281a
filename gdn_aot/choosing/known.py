"""What tuning records, and a capture, say for one target of a build."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from gdn_aot.choosing.transfer import Transfer
from gdn_aot.machine import installed
from gdn_aot.records import tuning

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gdn_aot.catalogue.targets import Target
    from gdn_aot.choosing.choose import Suggest
    from gdn_aot.launches import Config, Key
    from gdn_aot.tracing.captured import CapturedKernels
    from gdn_aot.tracing.wanted import Wanted
    from gdn_aot.tracing.wide import Extras


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What is known for one target before anything is compiled."""

    measured: tuning.TuningTable
    """By a card of the target, else by one that stood in for it; by digest of the kernel, else by name."""
    suggest: Suggest
    """Asked for what comes after a measured choice: what a capture has, then what records say of other choices."""
    extras: Extras
    """Configurations that only a wide search offers, by digest or name; see `gdn_aot.compiling.client.Worker.trace`."""


def known_for(wanted: Wanted, target: Target, root: Path | None) -> Known:
    """Read the tuning record of a target below ``root``, and find those that it may be transferred from."""
    distribution, version = wanted.provider.distribution, installed.built_from(wanted.provider)
    triton = installed.version("triton")
    transfer = Transfer(root, target, distribution, version, triton)
    measured = transfer.table()
    return Known(
        measured=measured,
        suggest=partial(_suggested, wanted.capture, target, transfer.suggest),
        extras=tuning.extras(measured),
    )


def _suggested(
    capture: CapturedKernels | None,
    target: Target,
    transferred: Suggest,
    kernel: str,
    key: Key,
    own: Sequence[Config],
    others: Sequence[Config],
    digest: str,
) -> Sequence[tuning.TunedChoice]:
    """Return what comes after a measured choice, best first: that of the deployment, if it is on this very target."""
    rest = transferred(kernel, key, own, others, digest)
    found = capture.choice(target, kernel, key) if capture is not None else None
    if found is None or found[0] not in own:
        return rest
    captured = tuning.TunedChoice(config=found[0], provenance="captured", note=found[1])
    return [captured, *(choice for choice in rest if choice.config != captured.config)]
