"""Turn a trace, its choices and the compiled kernels into the manifest and blobs of an artifact."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, cast

import zstandard
from msgspec import structs

from gdn_aot._files import read_regular
from gdn_aot._version import __version__
from gdn_aot.artifact import manifest as m
from gdn_aot.artifact import names
from gdn_aot.artifact.archive import epoch_from_environment
from gdn_aot.catalogue.models import distinct
from gdn_aot.deployment import Built
from gdn_aot.errors import ProviderMissingError
from gdn_aot.machine.environment import find_program
from gdn_aot.machine.kernel_package import LICENSE
from gdn_aot.tracing.records import NO_SHAPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gdn_aot.catalogue.models import ModelShape
    from gdn_aot.catalogue.providers import ProviderInfo
    from gdn_aot.catalogue.targets import Target
    from gdn_aot.choosing.choose import Choices
    from gdn_aot.compiling.cache import BuildCache
    from gdn_aot.launches import CompiledKernel, Key
    from gdn_aot.tracing import records
    from gdn_aot.tracing.wanted import Wanted

_CHECKOUT = Path(__file__).parent.parent.parent


def make_manifest(
    wanted: Wanted,
    target: Target,
    *,
    trace: records.Trace,
    choices: Choices,
    objects: dict[int, CompiledKernel],
    licenses: list[tuple[str, bytes]],
    numerics: m.Numerics,
    compile_cache: m.CompileCache | None = None,
) -> m.Manifest:
    """Build the manifest. ``objects`` maps launch indices to compiled kernels; every choice's launches are in it."""
    provider, limits = wanted.provider, wanted.limits
    shapes, models, lacking = _models_of_traced(wanted.shapes_for(target), trace, paged=provider.paged)
    users = _users(trace, choices, objects)
    commit, dirty = own_commit()
    by_kernel: dict[int, list[m.Binary]] = {}
    for index, compiled in objects.items():
        launch = trace.launches[index]
        by_kernel.setdefault(launch.kernel, []).append(_binary(launch, compiled, users[index], models))
    kernels = [_kernel(trace, index, choices, binaries) for index, binaries in sorted(by_kernel.items())]
    kernels.sort(key=lambda kernel: (kernel.module, kernel.qualname))
    return m.Manifest(
        format=m.FORMAT,
        identifier=names.make_identifier(
            provider.name, trace.provider_version, trace.triton_version, target.name, trace.workloads
        ),
        target=m.GPU(name=target.name, capability=target.capability, warp_size=32, max_shared=target.max_shared),
        provider=m.Provider(
            name=provider.name,
            distribution=provider.distribution,
            version=trace.provider_version,
            license=provider.license,
            license_files=tuple(
                m.LicenseFile(path=path, blob=hashlib.sha256(text).hexdigest()) for path, text in licenses
            ),
        ),
        triton=m.Triton(version=trace.triton_version, ptxas=trace.ptxas_version),
        models=tuple(map(_traced_shape, shapes)),
        workloads=tuple(trace.workloads),
        mode=cast("m.Mode", limits.mode),
        max_tokens=limits.max_tokens,
        max_batch=limits.max_batch,
        kernels=tuple(kernels),
        placed=tuple(
            m.PlacedFile(**structs.asdict(placement), blob=_sha256(content)) for placement, content in trace.placed
        ),
        not_covered=_not_covered(trace, choices, lacking),
        numerics=numerics,
        blobs=(),
        compile_cache=compile_cache,
        deployment=Built.of(wanted.deployment, trace.resolved) if wanted.deployment else None,
        build=m.Build(
            tool=f"gdn-aot {__version__}",
            commit=commit,
            dirty=dirty,
            epoch=epoch_from_environment(),
            zstd=".".join(map(str, zstandard.ZSTD_VERSION)),
        ),
    )


def blobs(
    manifest: m.Manifest, cache: BuildCache, licenses: Iterable[tuple[str, bytes]], placed: Iterable[tuple[object, str]]
) -> dict[str, bytes]:
    """Return every blob that a manifest refers to, by digest."""
    digests = {binary.cubin for kernel in manifest.kernels for binary in kernel.binaries}
    found = {digest: cache.cubin(digest) for digest in sorted(digests)}
    found |= {_sha256(content): content.encode() for _, content in placed}
    return {**found, **{hashlib.sha256(text).hexdigest(): text for _, text in licenses}}


def _sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _users(trace: records.Trace, choices: Choices, launches: Iterable[int]) -> dict[int, records.Users]:
    """Return whose calls cause each launch with the configurations chosen.

    A launch that no choice causes (there are some when all candidates are kept) has those for whom it is a candidate.
    """
    users = {launch: set(pairs) for launch, pairs in trace.plain.items()}
    for choice in choices.chosen:
        for launch, pairs in zip(choice.launches, choice.tuning.users, strict=True):
            users.setdefault(launch, set()).update(pairs)
    rest = set(launches).difference(users)
    for tuning in trace.tunings if rest else ():
        for variant, pairs in zip(tuning.variants, tuning.users, strict=True):
            for launch in rest.intersection(variant):
                users.setdefault(launch, set()).update(pairs)
    return users


def _models_of_traced(
    shapes: Sequence[ModelShape], trace: records.Trace, *, paged: bool
) -> tuple[list[ModelShape], list[list[int]], dict[str, str]]:
    """Return the models that are covered, for each traced shape the indices of those, and why others are not."""
    stands_for = [
        [shape for shape in shapes if len(distinct([traced, shape], paged=paged)) == 1]
        for traced in distinct(shapes, paged=paged)
    ]
    lacking = {shape.name: reason for index, reason in trace.lacking for shape in stands_for[index]}
    covered = [shape for shape in shapes if shape.name not in lacking]
    return covered, [[covered.index(shape) for shape in found if shape in covered] for found in stands_for], lacking


def _traced_shape(shape: ModelShape) -> m.TracedShape:
    fields = {name: getattr(shape, name) for name in m.TracedShape.__struct_fields__}
    return m.TracedShape(**{**fields, "gate_bound": shape.gate_bound or None})


def _kernel(trace: records.Trace, index: int, choices: Choices, binaries: list[m.Binary]) -> m.PackedKernel:
    chosen = (choice for choice in choices.chosen if choice.tuning.kernel == index)
    rows = [
        m.Choice(
            key=choice.tuning.key,
            config=choice.config,
            provenance=cast("m.Provenance", choice.provenance),
            derived=choice.derived,
            note=choice.note,
        )
        for choice in chosen
    ]
    return m.PackedKernel(
        **structs.asdict(trace.kernels[index]),
        choices=tuple(sorted(rows, key=lambda choice: str(choice.key))),
        binaries=tuple(sorted(binaries, key=lambda binary: binary.launch_key)),
    )


def _binary(
    launch: records.TracedLaunch, compiled: CompiledKernel, users: records.Users, models_of_traced: list[list[int]]
) -> m.Binary:
    return m.Binary(
        launch_key=launch.key,
        specialization=launch.specialization,
        metadata=compiled.metadata,
        resources=compiled.resources,
        models=tuple(sorted({model for shape, _ in users if shape != NO_SHAPE for model in models_of_traced[shape]})),
        workloads=tuple(sorted({workload for _, workload in users})),
        cubin=compiled.cubin,
    )


def _not_covered(trace: records.Trace, choices: Choices, lacking: dict[str, str]) -> tuple[m.NotCovered, ...]:
    keys: dict[tuple[str, str], list[Key]] = {}
    for kernel, reason, key in choices.uncovered:
        keys.setdefault((kernel, reason), []).extend([cast("Key", key)] if key is not None else [])
    for workload, reason in trace.refused:
        # The provider itself refused the call on this target: whatever it would have launched is not covered.
        keys.setdefault((f"workload:{workload}", f"refused by the provider: {reason}"), [])
    for workload, reason in trace.misfits:
        keys.setdefault((f"workload:{workload}", f"the provider is not as it is called: {reason}"), [])
    keys |= {(f"model:{name}", reason): [] for name, reason in lacking.items()}
    for kernel, reason in trace.left_out:
        keys.setdefault((kernel, f"captured, but {reason}"), [])
    for name, reason in trace.unplaced:
        keys.setdefault((f"inspection:{name}", reason), [])
    return tuple(
        m.NotCovered(kernel=kernel, reason=reason, keys=tuple(sorted(found, key=str)))
        for (kernel, reason), found in sorted(keys.items())
    )


def license_texts(
    provider: ProviderInfo, distribution: importlib.metadata.Distribution | None = None
) -> list[tuple[str, bytes]]:
    """Return (file name, text) of the licence files in a provider's distribution, sorted by name.

    Args:
        provider: The provider.
        distribution: Where to look, if not at what is installed here.

    Raises:
        ProviderMissingError: The distribution carries none that can be read, so that what is compiled from it could
            not be shipped.
    """
    if provider.copy:
        return list(provider.copy.licenses)
    distribution = distribution or importlib.metadata.distribution(provider.distribution)
    what = f"{provider.distribution} {distribution.version} as installed"
    hint = f"install it from its wheel: {provider.install}"
    try:
        found = {
            file.name: read_regular(str(file.locate()), names.MAX_BLOB)
            for file in distribution.files or []
            if LICENSE.match(file.name) and ".dist-info" in file.parts[0]
        }
    except OSError as error:
        raise ProviderMissingError(f"a licence text of {what} cannot be read: {error}", hint=hint) from error
    if not found:
        raise ProviderMissingError(f"{what} carries no licence text", hint=hint)
    return sorted(found.items())


def own_commit() -> tuple[str | None, bool]:
    """Return the commit of our own checkout and whether it has changes; (None, False) when installed."""
    if not (_CHECKOUT / ".git").exists():
        return None, False
    try:
        return _git("rev-parse", "HEAD"), bool(_git("status", "--porcelain", "--", "gdn_aot"))
    except (OSError, subprocess.CalledProcessError):
        return None, False


def _git(*arguments: str) -> str:
    git = find_program("git")
    if git is None:
        raise FileNotFoundError("git")
    command = [git, "--no-optional-locks", "-C", str(_CHECKOUT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
