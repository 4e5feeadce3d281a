"""What tuning records, and a capture, say for one target of a job."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from gdn_aot.choosing.transfer import Transfer
from gdn_aot.machine import installed
from gdn_aot.records import tuning as record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gdn_aot.building.pipeline import Job
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.choosing.choose import Suggest
    from gdn_aot.launches import Config, Scalar
    from gdn_aot.tracing.captured import CapturedKernels
    from gdn_aot.tracing.client import Extras


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What records say for one target."""

    measured: record.TuningTable
    suggest: Suggest
    """Asked for the keys that ``measured`` lacks: what a capture has, then what is transferred."""
    extras: Extras
    """Configurations that only a wide search offers; see `gdn_aot.tracing.client.Worker.trace`."""


def tuned_for(job: Job, target: Target) -> Tuned:
    """Read the record of a target, and find those that it may be transferred from."""
    distribution, version = job.provider.distribution, installed.require(job.provider.name)
    triton = installed.version("triton")
    own = None
    if job.tuning_root is not None:
        path = record.record_path(job.tuning_root, target.name, distribution, version)
        own = record.load(path, target=target.name, distribution=distribution, version=version)
    measured = record.table(own, triton)
    transfer = Transfer(job.tuning_root, target, distribution, version, triton)
    return Tuned(
        measured=measured,
        suggest=partial(_suggested, job.capture, target, transfer.suggest),
        extras=record.extras(measured),
    )


def _suggested(
    capture: CapturedKernels | None,
    target: Target,
    transferred: Suggest,
    kernel: str,
    key: tuple[Scalar, ...],
    own: Sequence[Config],
) -> Sequence[record.TunedChoice]:
    """Return choices that were not measured here, best first: that of the deployment, if it is on this very target."""
    rest = transferred(kernel, key, own)
    found = capture.choice(target, kernel, key) if capture is not None else None
    if found is None or found.config not in own:
        return rest
    return [found, *(choice for choice in rest if choice.config != found.config)]
