"""What a diagnosis comes to: every obstacle, and one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gdn_aot.doctor.artifacts import ArtifactState
    from gdn_aot.doctor.next_start import NextStart
    from gdn_aot.doctor.process import Compiler, Environment, Plugin, Versions
    from gdn_aot.doctor.store import StoreState
    from gdn_aot.machine.devices import Devices


@dataclass(frozen=True, kw_only=True, slots=True)
class Obstacle:
    """One reason why not everything is served from artifacts."""

    where: str
    """The part of the diagnosis that shows it: ``settings``, ``artifacts`` ..."""
    what: str
    hint: str
    """What to do about it."""


def blocks(versions: Versions, settings: Environment, compiler: Compiler, devices: Devices) -> Iterator[Obstacle]:
    """Yield why nothing would be served whatever artifacts there are."""
    changed = settings.changed_code_variable
    if not settings.enabled:
        yield Obstacle(where="settings", what="GDN_AOT=0 switches the loader off", hint="unset GDN_AOT")
    if changed:
        what = f"{changed} is set, which changes what Triton compiles"
        yield Obstacle(where="settings", what=what, hint=f"unset {changed}")
    if versions.triton_problem:
        hint = "install a supported Triton: see the table in the README"
        yield Obstacle(where="versions", what=versions.triton_problem, hint=hint)
    if not compiler.can_launch:
        hint = "install gdn-aot from its wheel, which has the launcher, or a C compiler and Python's headers"
        yield Obstacle(where="compiler", what=compiler.meaning, hint=hint)
    if devices.driver == "broken":
        hint = "see whether nvidia-smi works here, and how the container was given its GPUs"
        yield Obstacle(where="devices", what=devices.problem, hint=hint)


def failures(
    store: StoreState, only: str | None, artifacts: Sequence[ArtifactState], starts: Sequence[NextStart]
) -> Iterator[Obstacle]:
    """Yield why the artifacts that are here do not serve everything.

    Args:
        store: The store.
        only: What is used instead of it, if anything.
        artifacts: What was looked at.
        starts: What it comes to for each target.
    """
    commands = next((start.commands for start in starts if start.commands), ())
    make = f"{' or '.join(commands)}, then set GDN_AOT_ARTIFACT to its file" if commands else "see gdn-aot targets"
    if store.problem and not only:
        yield Obstacle(where="store", what=store.problem, hint="set GDN_AOT_HOME to another directory")
    elif not artifacts:
        yield Obstacle(where="artifacts", what=f"the store {store.path} has no artifact", hint=make)
    elif not any(artifact.accepted for artifact in artifacts):
        first = artifacts[0]
        what = f"no artifact fits: {first.identifier or first.path}: {first.reason}{_more(artifacts)}"
        other = f"install {first.provider} and triton {first.triton}, or {make}"
        yield Obstacle(where="artifacts", what=what, hint=other if first.identifier else _unreadable(first))
    else:
        for start in starts:
            yield from _shortcomings(start, artifacts, make)


def uninstalled(plugins: Sequence[Plugin]) -> Iterator[Obstacle]:
    """Yield why engines would not install the loader in their processes."""
    for plugin in plugins:
        engine = f"{plugin.host} {plugin.host_version}"
        if not plugin.installed:
            what = f"{engine} finds no entry point gdn_aot of {plugin.group}, so that it does not load it"
            hint = "pip install gdn-aot into its environment; a source tree on the path has no entry points"
            yield Obstacle(where="hooks", what=what, hint=hint)
        if plugin.left_out:
            what = f"{plugin.variable}={plugin.filter} leaves gdn_aot out, so that {engine} does not load it"
            hint = f"add gdn_aot to {plugin.variable}, or unset it"
            yield Obstacle(where="hooks", what=what, hint=hint)


def _unreadable(artifact: ArtifactState) -> str:
    if artifact.directory:
        return _repair(artifact)
    return f"gdn-aot verify {artifact.path} names every problem"


def _repair(artifact: ArtifactState) -> str:
    return f"delete {artifact.directory} and set GDN_AOT_ARTIFACT to its file: the next start installs it again"


def _shortcomings(start: NextStart, artifacts: Sequence[ArtifactState], make: str) -> Iterator[Obstacle]:
    if not start.artifacts:
        yield Obstacle(where="artifacts", what=f"no artifact that fits is for {_place(start)}", hint=make)
    if start.refused:
        what = f"refused: {start.refused[0].kernel}: {start.refused[0].reason}{_more(start.refused)}"
        hint = "install the provider as it was released, or build an artifact from what is installed"
        yield Obstacle(where="next_start", what=what, hint=hint)
    for artifact in artifacts:
        if artifact.damage and artifact.path in start.artifacts:
            what = f"{artifact.identifier} is damaged: {artifact.damage[0]}{_more(artifact.damage)}"
            yield Obstacle(where="artifacts", what=what, hint=_repair(artifact))


def sentence(obstacles: Sequence[Obstacle], starts: Sequence[NextStart]) -> str:
    """Return the verdict in one line."""
    if obstacles:
        return f"not ok: {obstacles[0].what}{_more(obstacles)}"
    served = "; ".join(
        f"{len(start.served)} kernel{'s' * (len(start.served) != 1)} for {_place(start)}" for start in starts
    )
    unseen = "" if any(start.devices for start in starts) else " (no device here to compare with)"
    return f"ok: artifacts serve {served}{unseen}"


def _place(start: NextStart) -> str:
    if not start.devices:
        return start.target or "any target"
    return f"device {', '.join(map(str, start.devices))} ({start.target})"


def _more(found: Sequence[object]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""
