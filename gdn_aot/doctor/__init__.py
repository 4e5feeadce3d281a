"""Say whether a process started here would be served from artifacts, and if not, why: what ``gdn-aot doctor`` shows.

Neither torch, Triton nor a provider is imported, no CUDA context is made, and nothing is written.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gdn_aot._text import plural
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.doctor.artifacts import ArtifactState, artifacts_section, examine
from gdn_aot.doctor.hub import read_hub
from gdn_aot.doctor.machine import devices_section, read_store
from gdn_aot.doctor.next_start import next_start_section, next_starts, shortcomings
from gdn_aot.doctor.process import read_compiler, read_environment, read_hooks, read_versions
from gdn_aot.doctor.section import more
from gdn_aot.doctor.trust import read_trust
from gdn_aot.machine.devices import read_devices
from gdn_aot.store.store import Store, artifact_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gdn_aot.doctor.next_start import NextStart
    from gdn_aot.doctor.section import Obstacle, Section

__all__ = ["Diagnosis", "diagnose"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """Everything that was looked at."""

    verdict: str
    """What it comes to, in one line."""
    obstacles: tuple[Obstacle, ...]
    """Why not every kernel is served, the weightiest first; none if an artifact that is whole fits, for each device."""
    sections: tuple[Section, ...]

    def document(self) -> dict[str, object]:
        """Return it as ``--json`` has it. Later versions may add keys; they do not remove any."""
        sections = {section.title.replace(" ", "_"): section.facts for section in self.sections}
        obstacles = [asdict(obstacle) for obstacle in self.obstacles]
        return {"ok": not obstacles, "verdict": self.verdict, "obstacles": obstacles, **sections}

    def page(self) -> Iterator[str]:
        """Yield the lines that a person reads."""
        for section in self.sections:
            yield section.title
            yield from section.lines
            yield ""
        if self.obstacles:
            yield "in the way"
            for obstacle in self.obstacles:
                yield f"  {obstacle.what}"
                yield f"    {obstacle.hint}"
            yield ""
        yield self.verdict


def diagnose(artifact: str | None = None, *, deep: bool = False) -> Diagnosis:
    """Look at this machine as a serving process would, with the store or other artifacts; deep: compare digests."""
    versions, compiler, found = read_versions(), read_compiler(), read_devices()
    settings = read_environment(old=any(device.index == 0 and device.capability < (8, 0) for device in found.found))
    devices = devices_section(found)
    only = artifact or settings.facts["artifact"]
    store = Store(settings.facts["home"])
    stored, places = read_store(store, only)
    trust = read_trust(settings.facts["home"])
    try:
        paths = artifact_files(only) if only else places
        artifacts = [examine(store, path, found.found, deep=deep) for path in paths]
    except OSError as error:
        artifacts = [ArtifactState(path=only, accepted=False, reason=str(error))]
    accepted = {one.provider.partition(" ")[0] for one in artifacts if one.accepted and one.provider}
    hooks = read_hooks(accepted)
    obstacles = [*settings.obstacles, *versions.obstacles, *compiler.obstacles, *devices.obstacles]
    providers = [name for name, info in PROVIDERS.items() if versions.facts["providers"][info.distribution]]
    starts = next_starts(artifacts, found.found, obstacles[0].what if obstacles else "", providers)
    obstacles += stored.obstacles or shortcomings(store.root, artifacts, starts)
    obstacles += [*trust.obstacles, *hooks.obstacles]
    return Diagnosis(
        verdict=f"not ok: {obstacles[0].what}{more(obstacles)}" if obstacles else _praise(starts),
        obstacles=tuple(obstacles),
        sections=(
            *(versions, settings, devices, compiler, stored, trust),
            *(artifacts_section(artifacts, found.found), read_hub(artifacts)),
            hooks,
            next_start_section(starts),
        ),
    )


def _praise(starts: Sequence[NextStart]) -> str:
    served = "; ".join(f"{plural(len(start.served), 'kernel')} for {start.place}" for start in starts)
    unseen = "" if any(start.devices for start in starts) else " (no device here to compare with)"
    return f"ok: artifacts serve {served}{unseen}"
