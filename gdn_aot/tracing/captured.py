"""Which kernels of captures are built into an artifact of one provider, and which are left out, with the reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from gdn_aot.artifact.names import CAPTURE
from gdn_aot.capture.form import Capture, LeftOut
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.errors import UsageError
from gdn_aot.launches import comparable
from gdn_aot.machine import installed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gdn_aot.capture.form import CapturedKernel, CapturedLaunch
    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.launches import Config, Key

_DIGITS = 8
"""Of a digest, in the name of a captured workload."""
_TORCH_GENERATED = "torch._inductor"


@dataclass(frozen=True, kw_only=True)
class CapturedKernels:
    """The kernels of one provider in a capture."""

    provider: str
    capture: Capture
    """Nothing but these."""
    left_out: tuple[LeftOut, ...]
    """The other kernels, and what the recorder left out."""

    @cached_property
    def name(self) -> str:
        """Name of the workload that stands for it, which ends the artifact's identifier."""
        return CAPTURE + self.capture.digest()[:_DIGITS]

    @cached_property
    def plain(self) -> list[dict[str, Any]]:
        """The kernels as JSON values."""
        plain: list[dict[str, Any]] = msgspec.to_builtins(self.capture.kernels)
        return plain

    def choice(self, target: Target, kernel: str, key: Key) -> tuple[Config, str] | None:
        """Return what the deployment chose for an autotune key on this very target, and a note.

        It is what most processes chose, if they differ.
        """
        counts = self._choices.get((target.name, kernel, comparable(key)))
        if not counts:
            return None
        most = min(counts, key=lambda text: (-counts[text], str(self._configs[text])))
        note = f"chosen in {counts[most]} of {counts.total()} recorded processes" if len(counts) > 1 else ""
        return self._configs[most], note

    @cached_property
    def _configs(self) -> dict[str, Config]:
        """The configurations by their texts: their hashes could be chosen."""
        tunings = (launch.tuning for kernel in self.capture.kernels for launch in kernel.launches)
        return {repr(tuning.config): tuning.config for tuning in tunings if tuning is not None}

    @cached_property
    def _choices(self) -> dict[tuple[str, str, str], Counter[str]]:
        found: dict[tuple[str, str, str], Counter[str]] = {}
        for kernel in self.capture.kernels:
            for launch in kernel.launches:
                if launch.tuning is not None and launch.tuning.key is not None:
                    place = (launch.target, kernel.name, comparable(launch.tuning.key))
                    config = repr(launch.tuning.config)
                    count = found.setdefault(place, Counter())
                    count[config] = max(count[config], launch.processes)
        return found


def owners(captures: Iterable[Capture]) -> list[str]:
    """Return the names of the providers that captured kernels belong to."""
    packages = {_package(kernel) for capture in captures for kernel in capture.kernels}
    return [provider.name for provider in PROVIDERS.values() if provider.package in packages]


def select(captures: Sequence[Capture], provider: ProviderInfo) -> CapturedKernels:
    """Take a provider's kernels out of captures, which together are one.

    Raises:
        UsageError: What is installed is not what a capture was made with.
    """
    for capture in captures:
        _check_versions(capture, provider)
    kernels = list(_united(kernel for capture in captures for kernel in capture.kernels))
    own = [kernel for kernel in kernels if _package(kernel) == provider.package]
    others = {LeftOut(what=kernel.name, reason=_foreign(kernel, provider)) for kernel in kernels if kernel not in own}
    others |= {item for capture in captures for item in capture.left_out}
    first = captures[0]
    packages = {package for capture in captures for package in capture.packages}
    whole = replace(
        first,
        processes=sum(capture.processes for capture in captures),
        packages=tuple(sorted(packages, key=str)),
        kernels=tuple(own),
        left_out=(),
    )
    return CapturedKernels(
        provider=provider.name, capture=whole, left_out=tuple(sorted(others, key=lambda item: (item.what, item.reason)))
    )


def _check_versions(capture: Capture, provider: ProviderInfo) -> None:
    pairs = [("triton", capture.triton)]
    pairs += [
        (row.distribution, row.version)
        for row in capture.packages
        if row.distribution == provider.distribution and row.version
    ]
    for name, wanted in pairs:
        found = installed.version(name)
        if found != wanted:
            raise UsageError(
                f"the capture is of {name} {wanted}, installed is {found or 'none'}",
                hint=f"pip install {name}=={wanted}, or record again",
            )


def _package(kernel: CapturedKernel) -> str:
    return kernel.module.partition(".")[0]


def _foreign(kernel: CapturedKernel, provider: ProviderInfo) -> str:
    package = _package(kernel)
    if kernel.module.startswith(_TORCH_GENERATED) or "<locals>" in kernel.qualname or package == "__main__":
        return "it was made while the program ran, or in its main file: no installed module holds it"
    other = next((item for item in PROVIDERS.values() if item.package == package), None)
    if other is not None:
        return f"it is of provider {other.name}, and an artifact holds one: build with --provider {other.name}"
    return f"it is of package {package}, which is no provider; this artifact is of {provider.distribution}"


def _united(kernels: Iterable[CapturedKernel]) -> Iterator[CapturedKernel]:
    """Yield each kernel once, with its launches of all captures, in order of names."""
    by_identity: dict[tuple[str, str, str], list[CapturedKernel]] = {}
    for kernel in kernels:
        identity = (kernel.name, kernel.source_sha256 or "", kernel.cache_key or "")
        by_identity.setdefault(identity, []).append(kernel)
    for _, same in sorted(by_identity.items(), key=lambda item: item[0]):
        launches: dict[bytes, CapturedLaunch] = {}
        for launch in (launch for kernel in same for launch in kernel.launches):
            place = msgspec.json.encode(replace(launch, processes=0))
            known = launches.get(place)
            launches[place] = launch if known is None else replace(known, processes=known.processes + launch.processes)
        yield replace(same[0], launches=tuple(launch for _, launch in sorted(launches.items())))
