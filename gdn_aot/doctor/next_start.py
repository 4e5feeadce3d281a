"""What the next serving process would compile or benchmark on the devices of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gdn_aot.catalogue.providers import build_command
from gdn_aot.doctor.engines import conditions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gdn_aot.doctor.artifacts import ArtifactState, Covered, Lacking, Refused
    from gdn_aot.doctor.engines import Condition
    from gdn_aot.doctor.process import Plugin
    from gdn_aot.machine.devices import Device


@dataclass(frozen=True, kw_only=True, slots=True)
class NextStart:
    """What happens on the devices of one target."""

    target: str | None
    """None where neither a device nor an artifact names one."""
    devices: tuple[int, ...]
    """Empty where no device is here; the target is then that of an artifact."""
    everything: str
    """Why Triton compiles and benchmarks everything, or empty."""
    command: str | None
    """What builds an artifact for this target, where none fits: the first of ``commands``."""
    artifacts: tuple[str, ...]
    """Paths of those that fit."""
    models: tuple[Covered, ...]
    """What they were built for."""
    served: tuple[str, ...]
    """Kernels that they serve, unless there is a reason for ``everything``."""
    refused: tuple[Refused, ...]
    """Kernels that they have and none can serve: Triton compiles them, and benchmarks those that are tuned."""
    not_covered: tuple[Lacking, ...]
    """What one of them was built without."""
    conditional: tuple[Condition, ...]
    """Kernels among ``served`` that the engine launches only if told to."""
    commands: tuple[str, ...]
    """What builds an artifact for this target, where none fits, of each provider that is installed."""


def next_starts(
    artifacts: Sequence[ArtifactState], devices: Sequence[Device], blocked: str, providers: Sequence[str] = ()
) -> tuple[NextStart, ...]:
    """Work out the next start for each target: of the devices, or where there is none, of the artifacts that fit.

    Args:
        artifacts: All that were looked at.
        devices: What is present.
        blocked: Why the loader would serve nothing whatever there is, or empty.
        providers: Names of those that are installed, as ``gdn-aot build --provider`` takes them.
    """
    accepted = [artifact for artifact in artifacts if artifact.accepted]
    targets: list[str | None] = [*dict.fromkeys(device.target for device in devices)]
    if not targets:
        targets = [*dict.fromkeys(artifact.target for artifact in accepted)] or [None]
    return tuple(
        _on(
            target,
            [device for device in devices if device.target == target],
            [artifact for artifact in accepted if artifact.target == target],
            blocked,
            providers,
        )
        for target in targets
    )


def _on(
    target: str | None,
    devices: Sequence[Device],
    fitting: Sequence[ArtifactState],
    blocked: str,
    providers: Sequence[str],
) -> NextStart:
    served: dict[str, None] = {}
    for artifact in fitting:
        refused = {item.kernel for item in artifact.refused}
        served.update((kernel, None) for kernel in artifact.kernels if kernel not in refused)
    reason = "" if fitting else f"no artifact for {target} fits" if target else "no artifact fits"
    buildable = all(device.buildable for device in devices)
    if reason and not buildable:
        reason += ", and gdn-aot cannot build for it"
    refusals = {item.kernel: item for artifact in fitting for item in artifact.refused}
    commands = build_commands(target, providers) if reason and buildable else ()
    return NextStart(
        target=target,
        devices=tuple(device.index for device in devices),
        everything=blocked or reason,
        command=next(iter(commands), None),
        artifacts=tuple(artifact.path for artifact in fitting),
        models=tuple(dict.fromkeys(model for artifact in fitting for model in artifact.models)),
        served=tuple(served),
        refused=tuple(item for kernel, item in refusals.items() if kernel not in served),
        not_covered=tuple(dict.fromkeys(item for artifact in fitting for item in artifact.not_covered)),
        conditional=tuple(_conditional(fitting, tuple(served))),
        commands=commands,
    )


def build_commands(target: str | None, providers: Sequence[str]) -> tuple[str, ...]:
    """Return what builds an artifact for a target of each of some providers, with a placeholder for what is not known.

    Args:
        target: None where none is known.
        providers: Names; where there are none, the user has to say which is meant.
    """
    return tuple(build_command(provider, target or "") for provider in providers or ("",))


def _conditional(fitting: Sequence[ArtifactState], served: tuple[str, ...]) -> Iterator[Condition]:
    for provider, capability in dict.fromkeys((artifact.provider, artifact.capability) for artifact in fitting):
        if provider and capability:
            distribution, _, version = provider.partition(" ")
            yield from conditions(distribution, version, capability, served)


def left_out(plugins: Sequence[Plugin], artifacts: Sequence[ArtifactState]) -> tuple[Plugin, ...]:
    """Return the engines here whose kernels an artifact has, and which would not install the loader."""
    engines = {artifact.provider.partition(" ")[0] for artifact in artifacts if artifact.accepted and artifact.provider}
    return tuple(
        plugin
        for plugin in plugins
        if plugin.host in engines and plugin.host_version and (plugin.left_out or not plugin.installed)
    )
