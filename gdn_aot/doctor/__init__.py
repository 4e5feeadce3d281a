"""Say whether a process started here would be served from artifacts, and if not, why: what ``gdn-aot doctor`` shows.

Neither torch, Triton nor a provider is imported, no CUDA context is made, and nothing is written.

`Diagnosis` is also the shape of ``gdn-aot doctor --json``: each record is an object with its fields as keys. Later
versions may add keys; they do not remove any.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.doctor.artifacts import artifact_files, installed_artifacts
from gdn_aot.doctor.next_start import left_out, next_starts
from gdn_aot.doctor.process import read_compiler, read_environment, read_hooks, read_versions
from gdn_aot.doctor.store import read_store
from gdn_aot.doctor.verdict import blocks, failures, sentence, uninstalled
from gdn_aot.machine.devices import read_devices

if TYPE_CHECKING:
    from gdn_aot.doctor.artifacts import ArtifactState
    from gdn_aot.doctor.next_start import NextStart
    from gdn_aot.doctor.process import Compiler, Environment, Hooks, Versions
    from gdn_aot.doctor.store import StoreState
    from gdn_aot.doctor.verdict import Obstacle
    from gdn_aot.machine.devices import Devices

__all__ = ["Diagnosis", "diagnose"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """Everything that was looked at, and what it comes to."""

    ok: bool
    """An artifact that is whole fits what is installed, each device here has one, and no kernel is refused."""
    verdict: str
    """That in one line."""
    obstacles: tuple[Obstacle, ...]
    """Why it is not ok, the weightiest first."""
    versions: Versions
    settings: Environment
    devices: Devices
    compiler: Compiler
    store: StoreState
    artifacts_from: str | None
    """The path that is used instead of the store, if any."""
    artifacts: tuple[ArtifactState, ...]
    """The accept/reject trace."""
    hooks: Hooks
    next_start: tuple[NextStart, ...]
    """One for each target: of the devices, or where there is none, of the artifacts that fit."""


def diagnose(artifact: str | None = None, *, deep: bool = False) -> Diagnosis:
    """Look at this machine as a serving process would.

    Args:
        artifact: A file or directory to look at; by default what ``GDN_AOT_ARTIFACT`` names, and else the store.
        deep: Also read every blob and record of the store, and check their digests.
    """
    versions, settings, compiler, devices = read_versions(), read_environment(), read_compiler(), read_devices()
    view = read_store(settings.home)
    only = artifact or settings.artifact
    if only:
        artifacts = artifact_files(view, only, devices.found, deep=deep)
    else:
        artifacts = installed_artifacts(view, devices.found, deep=deep)
    blocking = tuple(blocks(versions, settings, compiler, devices))
    providers = [name for name, info in PROVIDERS.items() if versions.providers[info.distribution]]
    starts = next_starts(artifacts, devices.found, blocking[0].what if blocking else "", providers)
    hooks = read_hooks()
    ignored = () if hooks.automatic or hooks.active else left_out(hooks.plugins, artifacts)
    obstacles = (*blocking, *failures(view.state, only, artifacts, starts), *uninstalled(ignored))
    return Diagnosis(
        ok=not obstacles,
        verdict=sentence(obstacles, starts),
        obstacles=obstacles,
        versions=versions,
        settings=settings,
        devices=devices,
        compiler=compiler,
        store=view.state,
        artifacts_from=only,
        artifacts=artifacts,
        hooks=hooks,
        next_start=starts,
    )
