"""Artifacts to publish: small, sound, and as many different ones as are asked for."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from artifact import factory

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact import names
from gdn_aot.artifact.archive import write_artifact
from gdn_aot.catalogue.targets import get_target

if TYPE_CHECKING:
    from pathlib import Path

    from gdn_aot.artifact.archive import Written
    from registry.loopback.state import Repository

PROVIDER, TRITON = "0.6.0", "3.6.0"
WANTED = ("--provider", "fla", "--provider-version", PROVIDER, "--triton", TRITON)
"""Options that ask for what `make` makes, whatever is installed here."""


def make(folder: Path, target: str = "sm_120", *, build: int = 0, size: int = 20_000) -> Written:
    """Write an artifact into a folder.

    Args:
        folder: Where to.
        target: What it is for.
        build: Another number gives other binaries under the same identifier.
        size: Bytes of its binaries, which do not compress; all targets share a quarter of them.
    """
    own, shared = random.Random(f"{target} {build} {size}"), random.Random(f"{build} {size}")
    cubins = b"\x7fELF" + own.randbytes(size * 3 // 4), b"\x7fELF" + shared.randbytes(size // 4)
    blobs = {factory.sha256(data): data for data in (factory.LICENSE, *cubins)}
    row = get_target(target)
    kernels = (
        factory.make_kernel(factory.make_binary(cubins[0]), factory.make_binary(cubins[1], "other")),
        factory.make_kernel(factory.make_binary(cubins[0]), qualname="l2norm_fwd_kernel"),
    )
    plain = factory.make_manifest()
    manifest = replace(
        plain,
        identifier=names.make_identifier(plain.provider.name, PROVIDER, TRITON, target),
        target=m.Target(name=row.name, capability=row.capability, warp_size=32, max_shared=row.max_shared),
        kernels=kernels,
    )
    return write_artifact(manifest, blobs, folder / f"build-{build}" / names.file_name(manifest.identifier))


@dataclass(frozen=True, kw_only=True)
class Published:
    """What two runs of ``gdn-aot publish`` left: v1.0.0 with sm_90 and sm_120, then v1.1.0 with another sm_120."""

    repository: Repository
    large: dict[str, bytes]
    sm_90: Written
    old: Written  # sm_120 of v1.0.0
    new: Written  # sm_120 of v1.1.0
