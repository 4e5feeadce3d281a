"""What is said of an artifact beside what its manifest holds: ``inspect`` says the same."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from gdn_aot.catalogue.providers import PROVIDERS, same_source
from gdn_aot.choosing.transfer import origin
from gdn_aot.providers import uncovered
from gdn_aot.records.expected import expected_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from gdn_aot.artifact.manifest import Manifest, PackedKernel
    from gdn_aot.artifact.verify import Artifact
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


def expected(manifests: Iterable[Manifest]) -> list[tuple[str, Expected | None]]:
    """Return how far from the best choices are expected to be, for each provenance that artifacts have."""
    known = expected_errors()
    found = {choice.provenance for one in manifests for kernel in one.kernels for choice in kernel.choices}
    return [(name, known.get(name)) for name in sorted(found)]


def lacking(manifest: Manifest) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """Return workloads on request that an artifact lacks, and calls that none covers."""
    provider = PROVIDERS.get(manifest.provider.name)
    if provider is None:
        return [], ()
    more = provider.on_request + provider.training_on_request * (manifest.mode == "train")
    return [name for name in more if name not in manifest.workloads], uncovered(provider.name)


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
