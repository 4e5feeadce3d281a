"""What the loader says about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gdn_aot.serving.find import Verdict
    from gdn_aot.serving.state import Miss


class Report(NamedTuple):
    """What the loader did in this process."""

    active: bool
    """Hooks are in place."""
    problem: str
    """Why nothing is served, or empty."""
    strict: bool
    on_miss: str
    native_launcher: bool
    """Launches go through the package's own launcher, which needs no C compiler."""
    artifacts: tuple[Verdict, ...]
    """Every artifact looked at, whether it is used, and why."""
    seeded: tuple[str, ...]
    """Kernels that are served, as ``module:qualname``."""
    refused: dict[str, str]
    """Kernel of an artifact that is not served -> the reason."""
    loaded: dict[str, int]
    """Kernel -> launch keys that were answered from an artifact. Later launches of a key are not counted."""
    modules: int
    """Modules loaded onto devices."""
    chosen: int
    """Autotune keys answered from an artifact."""
    misses: tuple[Miss, ...]
    """Launch keys and autotune keys that no artifact could answer."""

    def to_dict(self) -> dict[str, object]:
        """Return the report as plain data for JSON."""
        plain: dict[str, object] = self._asdict()
        plain["artifacts"] = [verdict.to_dict() for verdict in self.artifacts]
        plain["misses"] = [miss.to_dict() for miss in self.misses]
        return plain
