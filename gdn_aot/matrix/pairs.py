"""Which pairs of a matrix cannot be: what a provider's release requires, and what a Triton's assembler cannot make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gdn_aot._text import suggest
from gdn_aot.catalogue import assemblers
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.catalogue.targets import all_targets
from gdn_aot.triton_internals import SUPPORTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.catalogue.providers import ProviderVersion
    from gdn_aot.matrix.form import BuildEnvironment


def environment_problems(environment: BuildEnvironment) -> Iterator[tuple[str, str]]:
    """Yield why an environment of a known provider cannot be, each as (key, reason)."""
    distribution, version, triton = environment.distribution, environment.version, environment.triton
    supported = SUPPORTED[0] <= minor(triton) <= SUPPORTED[1]
    if not supported:
        low, high = (".".join(map(str, bound)) for bound in SUPPORTED)
        yield "triton", f"Triton {triton} is not supported; {low} to {high} are"
    release = _release(environment)
    if release is None:
        known = [release.version for release in PROVIDERS[environment.provider].versions]
        near = suggest(version, known, f"known are {', '.join(known)}")
        yield "version", f"unknown version {version} of {distribution}; {near}"
        return
    if supported and release.triton and minor(triton) != minor(release.triton):
        required = f"it requires {release.triton} ({release.source})"
        yield "triton", f"{distribution} {version} does not run with Triton {triton}: {required}"
    if minor(environment.python) < minor(release.python):
        yield "python", f"{distribution} {version} requires Python {release.python} or later"


def target_problem(environment: BuildEnvironment, target: str) -> str | None:
    """Return why an environment has no artifact for a target, or None. An unknown target has none."""
    found = next((one for one in all_targets() if one.name == target), None)
    if found is None:
        return None
    release = _release(environment)
    if release is not None and target in release.absent:
        return f"{environment.distribution} {environment.version} itself does not run on {target} ({release.source})"
    return assemblers.refusal(found, environment.triton)


def _release(environment: BuildEnvironment) -> ProviderVersion | None:
    releases = PROVIDERS[environment.provider].versions
    return next((release for release in releases if release.version == environment.version), None)


def minor(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version: (3, 8) of ``3.8.0``."""
    parts = version.split(".")[:2]
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in parts)
