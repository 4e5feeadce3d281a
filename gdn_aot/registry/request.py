"""What is wanted of a registry: options, and where they leave it open, what is installed and present on this machine.

Versions come from distribution metadata and GPUs from the CUDA driver: neither torch nor Triton is imported.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gdn_aot.catalogue.providers import PROVIDERS, get_provider, same_source
from gdn_aot.catalogue.targets import get_target
from gdn_aot.errors import UsageError
from gdn_aot.machine import installed
from gdn_aot.registry.select import Request, WantedProvider, WantedVersion

if TYPE_CHECKING:
    from collections.abc import Sequence

AUTO = "auto"
NATIVE = "native"
ALL = "all"
_NAME_TARGET = "name the target: --arch sm_90, repeatable; gdn-aot targets lists them"


def make_request(arch: Sequence[str], provider: str, provider_version: str, triton: str) -> Request:
    """Turn the options of a command that chooses artifacts into a request.

    Args:
        arch: Values of ``--arch``: targets, ``native``, ``all``, or several of these with commas between. Where there
            is none that is ``native``, the only one for which the GPU is looked at.
        provider: A name, or ``auto`` for every provider that is installed.
        provider_version: A version, or ``auto`` for what is installed.
        triton: A version, or ``auto`` for what is installed.

    Raises:
        UsageError: A name is unknown, or ``auto`` or ``native`` finds nothing; the hint says what to name.
    """
    providers = _named(provider, provider_version) or installed_providers()
    if not any(item.version and item.version.text for item in providers):
        names = " or ".join(item.name for item in providers)
        raise UsageError(
            f"{names} is not installed here, so there is no version to choose artifacts by",
            hint=f"name what the serving process has: --provider {providers[0].name} "
            f"--provider-version {PROVIDERS[providers[0].name].versions[0].version}",
        )
    compiler = named_version(triton) or found_version("triton")
    if compiler.text is None:
        raise UsageError(
            "Triton is not installed here, so there is no version to choose artifacts by",
            hint="name what the serving process has: --triton 3.6.0",
        )
    targets, native = _targets(arch or (NATIVE,))
    return Request(targets=targets, native=native, providers=providers, triton=compiler)


def locked_request(arch: Sequence[str], provider: str, provider_version: str, triton: str) -> Request:
    """Turn the same options into a request to a lock file, which says what is wanted where they do not.

    What is not named is wanted as the lock file has it, unless another version of it is installed here.

    Raises:
        UsageError: A name is unknown, or ``native`` finds no GPU.
    """
    providers = _named(provider, provider_version)
    others = not providers
    providers = tuple(
        WantedProvider(name=item.name, version=item.version if item.version and item.version.text else None)
        for item in providers or installed_providers()
    )
    compiler = named_version(triton) or found_version("triton")
    targets, native = _targets(arch or (ALL,))
    return Request(
        targets=targets, native=native, providers=providers, others=others, triton=compiler if compiler.text else None
    )


def machine_request() -> Request:
    """Return what a serving process started here could use, whatever is or is not installed. Never an error."""
    from gdn_aot.machine.devices import read_devices

    targets = tuple(dict.fromkeys(device.target for device in read_devices().found))
    return Request(
        targets=targets or None, native=True, providers=installed_providers(), triton=found_version("triton")
    )


def installed_providers() -> tuple[WantedProvider, ...]:
    """Return every provider that we know, with the version of it that is installed, if any."""
    return tuple(
        WantedProvider(name=name, version=_with_same(info.distribution, found_version(info.distribution)))
        for name, info in PROVIDERS.items()
    )


def found_version(distribution: str) -> WantedVersion:
    """Return which version of a distribution is installed, if any."""
    return WantedVersion(text=installed.version(distribution), installed=True)


def _with_same(distribution: str, version: WantedVersion) -> WantedVersion:
    """Return a version of a distribution with those that have the same source."""
    return version if version.text is None else replace(version, same=same_source(distribution, version.text))


def named_version(text: str) -> WantedVersion | None:
    """Return a version that was named; None for ``auto``."""
    return None if text == AUTO else WantedVersion(text=text, installed=False)


def _named(provider: str, version: str) -> tuple[WantedProvider, ...]:
    """Return the provider that was named, as it was named or is installed; nothing for ``auto``."""
    if provider != AUTO:
        info = get_provider(provider)
        found = named_version(version) or found_version(info.distribution)
        return (WantedProvider(name=provider, version=_with_same(info.distribution, found)),)
    if version != AUTO:
        raise UsageError(
            "--provider-version says nothing without --provider",
            hint=f"for example --provider fla --provider-version {version}",
        )
    return ()


def _targets(values: Sequence[str]) -> tuple[tuple[str, ...] | None, bool]:
    """Return names of targets, None for all, and whether they are only those of this machine."""
    parts = [part.strip() for value in values for part in value.split(",")]
    if not all(parts):
        raise UsageError("--arch has an empty name", hint="for example --arch sm_80,sm_90")
    words = {part.lower() for part in parts}
    if ALL in words:
        return None, False
    names: dict[str, None] = {}
    for part in parts:
        names.update(dict.fromkeys(_native() if part.lower() == NATIVE else (get_target(part).name,)))
    return tuple(names), words == {NATIVE}


def _native() -> tuple[str, ...]:
    from gdn_aot.machine.devices import read_devices

    devices = read_devices()
    if not devices.found:
        why = devices.problem.partition(":")[0] if devices.driver != "broken" else devices.problem
        raise UsageError(f"no GPU is found here to choose a target by: {why}", hint=_NAME_TARGET)
    return tuple(device.target for device in devices.found)
