"""Which pairs of a matrix cannot be: what a provider's release requires, and what a Triton's assembler cannot make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gdn_aot.catalogue import assemblers
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.catalogue.targets import all_targets
from gdn_aot.matrix.read import suggest
from gdn_aot.triton_internals import SUPPORTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.catalogue.providers import ProviderInfo, ProviderVersion
    from gdn_aot.matrix.form import Environment


def environment_problems(provider: ProviderInfo, version: str, triton: str, python: str) -> Iterator[tuple[str, str]]:
    """Yield why an environment cannot be, each as (key, reason).

    Args:
        provider: Whose kernels are built in it.
        version: Of the provider's distribution.
        triton: Version of Triton.
        python: Version of Python, as ``3.11``.
    """
    supported = (minor(triton) >= SUPPORTED[0]) and (minor(triton) <= SUPPORTED[1])
    if not supported:
        low, high = (".".join(map(str, bound)) for bound in SUPPORTED)
        yield "triton", f"Triton {triton} is not supported; {low} to {high} are"
    known = {release.version: release for release in provider.versions}
    release = known.get(version)
    if release is None:
        yield "version", f"unknown version {version} of {provider.distribution}; {suggest(version, tuple(known))}"
        return
    if supported and release.triton and minor(triton) != minor(release.triton):
        yield (
            "triton",
            (
                f"{provider.distribution} {version} does not run with Triton {triton}: it requires {release.triton} "
                f"({release.source})"
            ),
        )
    if minor(python) < minor(release.python):
        yield "python", f"{provider.distribution} {version} requires Python {release.python} or later"


def target_problem(environment: Environment, target: str) -> str | None:
    """Return why an environment has no artifact for a target, or None. An unknown target has none."""
    found = next((one for one in all_targets() if one.name == target), None)
    if found is None:
        return None
    release = _release(environment)
    if release is not None and target in release.absent:
        return f"{environment.distribution} {environment.version} itself does not run on {target} ({release.source})"
    return assemblers.refusal(found, environment.triton)


def _release(environment: Environment) -> ProviderVersion | None:
    releases = PROVIDERS[environment.provider].versions
    return next((release for release in releases if release.version == environment.version), None)


def minor(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version: (3, 8) of ``3.8.0``."""
    parts = version.split(".")[:2]
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in parts)
