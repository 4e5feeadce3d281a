"""What is said of an artifact beside what its manifest holds: ``inspect`` says the same."""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import TYPE_CHECKING

from gdn_aot._text import plural
from gdn_aot.artifact.cached import SWITCH as CACHE_SWITCH
from gdn_aot.catalogue.providers import PROVIDERS, same_source
from gdn_aot.choosing.transfer import OTHER_FORM, origin
from gdn_aot.providers import uncovered
from gdn_aot.records.expected import expected_errors, transfer_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from gdn_aot.artifact.manifest import Choice, Manifest, PackedKernel
    from gdn_aot.artifact.verify import Artifact
    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.records.expected import Expected
    from gdn_aot.records.numerics import NumericsRecord


def sizes(artifact: Artifact) -> dict[str, int]:
    """Return the bytes of an artifact's file and of what is in it."""
    return {
        "file": artifact.size,
        "uncompressed": artifact.uncompressed,
        "manifest": len(artifact.manifest_json),
        "blobs": sum(blob.size for blob in artifact.manifest.blobs),
    }


def host_code(manifest: Manifest) -> str:
    """Return what an artifact has that runs on the host if the user of a server asks for it, or nothing."""
    cache = manifest.compile_cache
    if cache is None:
        return ""
    table = {blob.sha256: blob.size for blob in manifest.blobs}
    size = sum(table[blob] for blob in manifest.cached_blobs)
    files = f"{plural(len(cache.files), 'file')}, {size / 2**20:.1f} MiB"
    return f"vLLM's compile cache ({files}) of {cache.origin}; vLLM runs it if {CACHE_SWITCH}=1"


def expected(manifests: Iterable[Manifest]) -> list[tuple[str, Expected | None]]:
    """Return how far from the best choices are expected to be, for each provenance that artifacts have."""
    known = expected_errors()
    found = {choice.provenance for one in manifests for kernel in one.kernels for choice in kernel.choices}
    return [(name, known.get(name)) for name in sorted(found)]


def expected_rows(manifests: Iterable[Manifest]) -> list[tuple[str, str, int, Expected | None]]:
    """Return what is expected of the choices that artifacts have: rows for a table, one for each provenance.

    Those that were transferred have one for each provider, target, and place where they were taken from.

    Returns:
        Provenance, what it is of, number of choices, and how far from the best they are expected to be.
    """
    known, counts = expected_errors(), Counter[tuple[str, ...]]()
    for manifest in manifests:
        for kernel in manifest.kernels:
            for choice in kernel.choices:
                moved = choice.provenance == "transferred"
                place = (manifest.provider.name, manifest.target.name) if moved else ("", "")
                counts[(choice.provenance, *place, *taken_from(choice, manifest))] += 1
    rows = []
    for (provenance, *way), count in sorted(counts.items()):
        of, error = "", known.get(provenance)
        if provenance == "transferred":
            provider, target, kind, source = way
            of = f"{provider}: {_WAYS[kind].format(source=source, target=target)}"
            error = _moved(provider, target, kind, source)
        rows.append((provenance, of, count, error))
    return rows


_WAYS = {
    "key": "from one key to another of {target}",
    "target": "from {source} to {target}",
    "release": "from another release or form of the kernel, to {target}",
    "": "to {target}",
}
_FROM = re.compile(r"from (sm_[0-9]+[a-z]?) \(([^:]*)\)(?=:)")
"""How notes of transferred choices begin: `gdn_aot.choosing.transfer`."""


def taken_from(choice: Choice, manifest: Manifest) -> tuple[str, str]:
    """Return where a transferred choice is from, and the target: ``key``, ``target`` or ``release``; else nothing."""
    found = _FROM.match(choice.note) if choice.provenance == "transferred" else None
    if found is None:
        return "", ""
    source, origin = found.groups()
    if f", {manifest.provider.distribution} " in origin or origin.endswith(OTHER_FORM):
        return "release", source
    return ("key" if source == manifest.target.name else "target"), source


def error_of(choice: Choice, manifest: Manifest) -> Expected | None:
    """Return the error that is expected of a transferred choice; None if it was not measured."""
    return _moved(manifest.provider.name, manifest.target.name, *taken_from(choice, manifest))


def _moved(provider: str, target: str, kind: str, source: str) -> Expected | None:
    """Return the error of transferred choices; choices from a target other than sm_90 were not compared."""
    if kind == "target" and source != "sm_90":
        return None
    return _errors().get((provider, target, kind))


_errors = functools.cache(transfer_errors)


def absent(manifest: Manifest) -> list[str]:
    """Return workloads that a build has by default and this artifact lacks; none of one that is for a deployment."""
    provider = PROVIDERS.get(manifest.provider.name)
    if provider is None or manifest.deployment:
        return []
    names = provider.workloads + provider.training * (manifest.mode == "train")
    return _missing(provider, names, manifest)


def lacking(manifest: Manifest) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """Return workloads on request that an artifact lacks, and calls that none covers."""
    provider = PROVIDERS.get(manifest.provider.name)
    if provider is None:
        return [], ()
    more = provider.on_request + provider.training_on_request * (manifest.mode == "train")
    return _missing(provider, more, manifest), uncovered(provider.name)


def _missing(provider: ProviderInfo, names: Iterable[str], manifest: Manifest) -> list[str]:
    """Return the workloads that an artifact lacks and that are for one of its models; without models all it lacks."""
    families = {row.family for row in manifest.models}
    return [
        name
        for name in names
        if name not in manifest.workloads and not (families and provider.families_of([name]).isdisjoint(families))
    ]


def origins(manifest: Manifest) -> Iterator[str]:
    """Yield a line for each place where choices were measured or transferred from."""
    tuned = (choice for kernel in manifest.kernels for choice in kernel.choices if choice.provenance != "default")
    counts = Counter((choice.provenance, origin(choice.note)) for choice in tuned)
    for (provenance, where), count in sorted(counts.items()):
        yield f"{count} {provenance} {where}".rstrip()


def cubin_bytes(kernel: PackedKernel, manifest: Manifest) -> int:
    """Return the bytes of the distinct cubins of a kernel."""
    found = {blob.sha256: blob.size for blob in manifest.blobs}
    return sum(found[digest] for digest in {binary.cubin for binary in kernel.binaries})


def has_records(manifest: Manifest) -> bool:
    """Say whether there may be records of an artifact's provider, whose distribution becomes part of a path."""
    provider = PROVIDERS.get(manifest.provider.name)
    return provider is not None and provider.distribution == manifest.provider.distribution


def numerics_of(manifest: Manifest, root: Path | None) -> NumericsRecord | None:
    """Return the record below ``root`` that a build of this artifact reads; None if there is none.

    Raises:
        UsageError: It is refused.
    """
    from gdn_aot.records.numerics import FORM

    if not has_records(manifest):
        return None
    distribution, version = manifest.provider.distribution, manifest.provider.version
    versions = (version, *same_source(distribution, version))
    records = (FORM.find(root, manifest.target.name, distribution, one) for one in versions)
    return next(filter(None, records), None)
