"""Prove an artifact against random traffic, from the parent's side."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec

from gdn_aot.catalogue.providers import Limits, get_provider
from gdn_aot.catalogue.rows import shape_of
from gdn_aot.catalogue.targets import get_target
from gdn_aot.compiling.client import Worker
from gdn_aot.errors import Problem, UnsupportedProviderError, UsageError
from gdn_aot.machine import installed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gdn_aot.artifact.manifest import Manifest
    from gdn_aot.catalogue.models import ModelShape


def cover(
    manifest: Manifest,
    shapes: Sequence[ModelShape],
    workloads: Sequence[str],
    progress: Callable[[int, int, str], None],
    *,
    calls: int,
    seed: int,
    engine: bool = False,
) -> dict[str, Any]:
    """Replay ``calls`` random calls against an artifact's keys; with ``engine``, as many of its deployment's engine.

    ``progress`` is told how many are made, of how many, and the present one. Returns what
    `gdn_aot.tracing.replay.replay` returns; misses of kernels and keys that the manifest itself lists as not covered
    are under ``not_covered`` instead of ``misses``.

    Raises:
        UsageError: The artifact is of another provider than is installed, or the installed Triton is another version.
        UnsupportedProviderError: Calls broke, as the installed provider is not as its workloads take it to be.
    """
    check_versions(manifest)
    with Worker(manifest.provider.name, get_target(manifest.target.name)) as worker:
        worker.far = progress
        result = worker.replay(
            {
                "kernels": _keys(manifest),
                "shapes": [asdict(shape) for shape in shapes],
                "limits": asdict(
                    Limits(max_tokens=manifest.max_tokens, max_batch=manifest.max_batch, mode=manifest.mode)
                ),
                "workloads": list(workloads),
                "deployment": msgspec.to_builtins(manifest.deployment.asked)
                if engine and manifest.deployment
                else None,
                "calls": calls,
                "seed": seed,
            }
        )
    if misfits := result.pop("misfits"):
        broken = [Problem("", f"{one['count']} times: {one['reason']}") for one in misfits]
        what = f"the installed {manifest.provider.distribution} is not as its provider calls it"
        raise UnsupportedProviderError(f"{what}: {broken[0]}", broken if len(broken) > 1 else ())
    declared = {(gap.kernel, str(key)) for gap in manifest.not_covered for key in gap.keys}
    declared |= {(gap.kernel, "None") for gap in manifest.not_covered if not gap.keys}
    known = [miss for miss in result["misses"] if (miss["kernel"], str(miss["autotune_key"])) in declared]
    result["not_covered"] = known
    result["misses"] = [miss for miss in result["misses"] if miss not in known]
    del result["event"]
    return result


def built_shapes(manifest: Manifest) -> tuple[ModelShape, ...]:
    """Return the shapes that an artifact was built for, those of ``--shape`` included."""
    return tuple(shape_of(msgspec.structs.asdict(row)) for row in manifest.models)


def check_versions(manifest: Manifest) -> None:
    """Check that an artifact is of the installed provider, whatever its version, and for the installed Triton.

    Which of its kernels have the installed source is for whoever uses them to ask.

    Raises:
        UsageError: It is not.
        ProviderMissingError: The provider is not installed.
    """
    info = get_provider(manifest.provider.name)
    if manifest.provider.distribution != info.distribution:
        raise UsageError(
            f"the artifact was built from {manifest.provider.distribution}, a copy of {info.distribution} in a folder",
            hint="this command is for artifacts of installed providers; the loader knows a copy by its source",
        )
    installed.require(manifest.provider.name)
    wanted, found = manifest.triton.version, installed.version("triton")
    if wanted != found:
        raise UsageError(
            f"the artifact is for triton {wanted}, installed is {found}", hint=f"pip install triton=={wanted}"
        )


def _keys(manifest: Manifest) -> dict[str, Any]:
    return {
        kernel.name: {
            "cache_key": kernel.cache_key,
            "sources": [[source.path, source.sha256] for source in kernel.sources],
            "launches": [binary.launch_key for binary in kernel.binaries],
            "relaxations": [relaxed.row for relaxed in kernel.relaxations],
            "choices": [[choice.key, msgspec.to_builtins(choice.config)] for choice in kernel.choices],
        }
        for kernel in manifest.kernels
    }
