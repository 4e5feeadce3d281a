"""What the next serving process would compile or benchmark on the devices of this machine, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING

from gdn_aot._text import plural
from gdn_aot.catalogue.providers import arch_word, build_command
from gdn_aot.doctor.section import SHOWN, Obstacle, Section, more
from gdn_aot.machine import installed
from gdn_aot.providers.sglang import engine as sglang
from gdn_aot.providers.vllm import engine as vllm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gdn_aot.doctor.artifacts import ArtifactState, Covered, Unserved
    from gdn_aot.machine.devices import Device
    from gdn_aot.providers.vllm.engine import Condition


@dataclass(frozen=True, kw_only=True, slots=True)
class NextStart:
    """What happens on the devices of one target."""

    target: str | None
    """None where neither a device nor an artifact names one."""
    devices: tuple[int, ...]
    """Empty where no device is here; the target is then that of an artifact."""
    everything: str
    """Why Triton compiles and benchmarks everything, or empty."""
    commands: tuple[str, ...]
    """What builds an artifact for this target, where none fits, of each provider that is installed."""
    artifacts: tuple[str, ...]
    """Paths of those that fit."""
    models: tuple[Covered, ...]
    """What they were built for."""
    served: tuple[str, ...]
    """Kernels that they serve, unless there is a reason for ``everything``."""
    refused: tuple[Unserved, ...]
    """Kernels that they have and none can serve: Triton compiles them, and benchmarks those that are tuned."""
    not_covered: tuple[Unserved, ...]
    """What one of them was built without."""
    conditional: tuple[Condition, ...]
    """Kernels among ``served`` that the engine does not always launch."""

    @property
    def place(self) -> str:
        """What messages call the devices, or the target where there are none."""
        if not self.devices:
            return self.target or "any target"
        return f"device {', '.join(map(str, self.devices))} ({self.target})"


def next_starts(
    artifacts: Sequence[ArtifactState], devices: Sequence[Device], blocked: str, providers: Sequence[str] = ()
) -> tuple[NextStart, ...]:
    """Work out the next start for each target: of the devices, or where there is none, of the artifacts that fit.

    ``blocked`` says why the loader would serve nothing whatever there is; ``providers`` are those that are installed.
    """
    accepted = [artifact for artifact in artifacts if artifact.accepted]
    targets: list[str | None] = [*dict.fromkeys(device.target for device in devices)]
    if not targets:
        targets = [*dict.fromkeys(artifact.target for artifact in accepted)] or [None]
    return tuple(_on(target, devices, accepted, blocked, providers) for target in targets)


def next_start_section(starts: Sequence[NextStart]) -> Section:
    """Return what happens on the devices of each target."""
    lines = [line for start in starts for line in _lines(start)]
    return Section(title="next start", facts=list(map(asdict, starts)), lines=tuple(lines))


def shortcomings(where: str, artifacts: Sequence[ArtifactState], starts: Sequence[NextStart]) -> Iterator[Obstacle]:
    """Yield why the artifacts that are here do not serve everything; ``where`` is the store."""
    lacking = next((start for start in starts if start.commands), None)
    make = f"{_cover(lacking)}, then set GDN_AOT_ARTIFACT to its file" if lacking else "see gdn-aot targets"
    if not artifacts:
        yield Obstacle(where="artifacts", what=f"the store {where} has no artifact", hint=make)
    elif not any(artifact.accepted for artifact in artifacts):
        first = artifacts[0]
        what = f"no artifact fits: {first.identifier or first.path}: {first.reason}{more(artifacts)}"
        other = f"install {first.provider} and triton {first.triton}, or {make}"
        yield Obstacle(where="artifacts", what=what, hint=other if first.identifier else _repair(first))
    else:
        for start in starts:
            yield from _failures(start, artifacts, make)


def _failures(start: NextStart, artifacts: Sequence[ArtifactState], make: str) -> Iterator[Obstacle]:
    if not start.artifacts:
        yield Obstacle(where="artifacts", what=f"no artifact that fits is for {start.place}", hint=make)
    if start.refused:
        what = f"refused: {start.refused[0].kernel}: {start.refused[0].reason}{more(start.refused)}"
        hint = "install the provider as it was released, or build an artifact from what is installed"
        yield Obstacle(where="next_start", what=what, hint=hint)
    for artifact in artifacts:
        if artifact.damage and artifact.path in start.artifacts:
            what = f"{artifact.identifier} is damaged: {artifact.damage[0]}{more(artifact.damage)}"
            yield Obstacle(where="artifacts", what=what, hint=_repair(artifact))


def _cover(start: NextStart) -> str:
    """Return what brings an artifact: fetching it, which any host can, or building it."""
    return f"gdn-aot fetch --arch {arch_word(start.target or '')}, or {' or '.join(start.commands)}"


def _repair(artifact: ArtifactState) -> str:
    if not artifact.directory:
        return f"gdn-aot verify {artifact.path} names every problem"
    return f"delete {artifact.directory} and set GDN_AOT_ARTIFACT to its file: the next start installs it again"


def _on(
    target: str | None,
    present: Sequence[Device],
    accepted: Sequence[ArtifactState],
    blocked: str,
    providers: Sequence[str],
) -> NextStart:
    devices = [device for device in present if device.target == target]
    fitting = [artifact for artifact in accepted if artifact.target == target]
    served = dict.fromkeys(chain.from_iterable(artifact.served for artifact in fitting))
    buildable = all(device.buildable for device in devices)
    reason = f"no artifact{f' for {target}' if target else ''} fits"
    reason += ", and gdn-aot cannot build for it" * (not buildable)
    refusals = {item.kernel: item for item in chain.from_iterable(artifact.refused for artifact in fitting)}
    builders = (providers or ("",)) if buildable and not fitting else ()
    return NextStart(
        target=target,
        devices=tuple(device.index for device in devices),
        everything=blocked or reason * (not fitting),
        commands=tuple(build_command(provider, target or "") for provider in builders),
        artifacts=tuple(artifact.path for artifact in fitting),
        models=tuple(dict.fromkeys(chain.from_iterable(artifact.models for artifact in fitting))),
        served=tuple(served),
        refused=tuple(item for kernel, item in refusals.items() if kernel not in served),
        not_covered=tuple(dict.fromkeys(chain.from_iterable(artifact.not_covered for artifact in fitting))),
        conditional=tuple(_conditional(fitting, tuple(served))),
    )


def _conditional(fitting: Sequence[ArtifactState], served: tuple[str, ...]) -> Iterator[Condition]:
    for provider, capability in dict.fromkeys((artifact.provider, artifact.capability) for artifact in fitting):
        if provider and capability:
            distribution, _, version = provider.partition(" ")
            here = installed.version(distribution)
            for engine in (vllm, sglang):
                yield from engine.conditions(distribution, here or version, capability, served)


def _lines(start: NextStart) -> Iterator[str]:
    if start.everything:
        command = f": {_cover(start)}" if start.commands else ""
        yield f"  {start.place} compiles and benchmarks everything, as {start.everything}{command}"
        return
    yield f"  {start.place}: {plural(len(start.served), 'kernel')} served"
    yield f"    for  {', '.join(map(str, start.models))}"
    yield from _listed("compiled and benchmarked, as their source differs", start.refused)
    yield from _listed("not covered by the build", start.not_covered)
    for condition in start.conditional:
        yield f"    of those served, launched only under a condition: {len(condition.kernels)}"
        yield f"      {condition.reason}"
        yield from (f"      {name}" for name in condition.kernels[:SHOWN])


def _listed(title: str, items: Sequence[Unserved]) -> Iterator[str]:
    if items:
        yield f"    {title}: {len(items)}"
        yield from (f"      {item.kernel}: {item.reason}" for item in items[:SHOWN])
        if len(items) > SHOWN:
            yield f"      and {len(items) - SHOWN} more"
