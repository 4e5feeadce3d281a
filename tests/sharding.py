"""Shards made of a manifest by hand: what a build of each part would have written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from artifact.factory import sha256

from gdn_aot.artifact import manifest as m
from gdn_aot.artifact.archive import write_artifact
from gdn_aot.artifact.shard import Inputs, Shard, file_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

INPUTS = Inputs(code=sha256(b"code"), trace=sha256(b"trace"), tuning=sha256(b"tuning"), numerics="")


def divide(manifest: m.Manifest, of: int, place: Callable[[], int]) -> list[m.Manifest]:
    """Return the manifests of shards; ``place`` says for each choice, binary and key which has it, from 0."""
    kernels: list[list[m.Kernel]] = [[] for _ in range(of)]
    for kernel in manifest.kernels:
        choices: list[list[m.Choice]] = [[] for _ in range(of)]
        binaries: list[list[m.Binary]] = [[] for _ in range(of)]
        for choice in kernel.choices:
            choices[place()].append(choice)
        for binary in kernel.binaries:
            binaries[place()].append(binary)
        for part in range(of):
            if choices[part] or binaries[part] or not (kernel.choices or kernel.binaries):
                mine = replace(kernel, choices=tuple(choices[part]), binaries=tuple(binaries[part]))
                kernels[part].append(mine)
    gaps: list[list[m.NotCovered]] = [[] for _ in range(of)]
    for gap in manifest.not_covered:
        for key in gap.keys:
            gaps[place()].append(replace(gap, keys=(key,)))
    every = sum(len(kernel.choices) for kernel in manifest.kernels)
    every += sum(len(gap.keys) for gap in manifest.not_covered)
    return [
        replace(
            manifest,
            kernels=tuple(kernels[part]),
            not_covered=tuple(gaps[part]),
            shard=Shard(
                number=part + 1,
                of=of,
                keys=sum(len(kernel.choices) for kernel in kernels[part]) + len(gaps[part]),
                all_keys=every,
                candidates="chosen",
                inputs=INPUTS,
                checked=None,
                spare=(),
            ),
        )
        for part in range(of)
    ]


def write(manifest: m.Manifest, blobs: Mapping[str, bytes], directory: Path, name: str = "") -> Path:
    """Write one shard with those of the blobs that it refers to."""
    shard = manifest.shard
    assert shard is not None
    wanted = {file.blob for file in manifest.provider.license_files}
    wanted |= {binary.cubin for kernel in manifest.kernels for binary in kernel.binaries}
    path = directory / (name or file_name(manifest.identifier, shard.number, shard.of))
    return write_artifact(manifest, {digest: blobs[digest] for digest in wanted}, path).path


def write_all(manifests: Sequence[m.Manifest], blobs: Mapping[str, bytes], directory: Path) -> list[Path]:
    """Write all shards of a build."""
    return [write(manifest, blobs, directory) for manifest in manifests]
