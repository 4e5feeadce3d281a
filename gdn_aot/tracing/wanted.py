"""What is to be built: all that the stages need to know of a build, however it is run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gdn_aot.catalogue.models import distinct

if TYPE_CHECKING:
    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import Limits, ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.deployment import Deployment
    from gdn_aot.tracing.captured import CapturedKernels


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What to build, for every target alike."""

    provider: ProviderInfo
    shapes: tuple[ModelShape, ...]
    fp16_fallback: bool
    """Build for fp16 on targets without bf16 arithmetic: that is what such cards are run with."""
    limits: Limits
    workloads: tuple[str, ...]
    capture: CapturedKernels | None = None
    """Kernels of a capture that are built too."""
    deployment: Deployment | None = None
    """Every kernel that the engine launches for it is built too."""

    def shapes_for(self, target: Target) -> tuple[ModelShape, ...]:
        """Return the shapes to build for a target."""
        if target.bf16 or not self.fp16_fallback:
            return self.shapes
        return tuple(dict.fromkeys(replace(shape, dtype="fp16") for shape in self.shapes))

    def distinct_for(self, target: Target) -> tuple[ModelShape, ...]:
        """Return one of each of these that the provider's kernels can tell apart."""
        return distinct(self.shapes_for(target), paged=self.provider.paged)
