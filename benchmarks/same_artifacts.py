"""Say whether two folders of artifacts hold the same machine code and the same choices.

    python benchmarks/same_artifacts.py OLD NEW

OLD is of a gdn-aot before the redesign, whose JSON manifest is read here directly; NEW is read through the package.
Compared are, by identifier, the SHA-256 of the cubin of each kernel and launch key, and the configuration and
provenance of each kernel and autotune key. Ends with 1 if something differs, or if one folder lacks an artifact.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import zstandard

from gdn_aot.artifact.verify import open_artifact

_SHOWN = 5
"""Differences of an artifact that are printed."""
_CONFIG = ("num_warps", "num_stages", "num_ctas", "maxnreg")

Content = dict[tuple[str, str, str], Any]
"""(``cubin`` or ``choice``, kernel, key) -> SHA-256, or configuration and provenance."""


def _choice(kwargs: Any, config: list[int | None], provenance: str) -> Any:
    return sorted(dict(kwargs).items()), config, provenance


def read_old(path: Path) -> tuple[str, Content]:
    """Read an artifact as it was: a zstd frame with a trailer after it, in it a tar that begins with manifest.json."""
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as frame:
        archive = tarfile.open(fileobj=io.BytesIO(frame.read()))  # noqa: SIM115 - in memory
    member = archive.extractfile("manifest.json")
    assert member is not None  # noqa: S101
    manifest = json.loads(member.read())
    found: Content = {}
    for kernel in manifest["kernels"]:
        name = f"{kernel['module']}:{kernel['qualname']}"
        for binary in kernel["binaries"]:
            found["cubin", name, binary["launch_key"]] = binary["cubin"]
        for row in kernel["choices"]:
            config = row["config"]
            made = _choice(config["kwargs"], [config[field] for field in _CONFIG], row["provenance"])
            found["choice", name, json.dumps(row["key"])] = made
    return manifest["identifier"], found


def read_new(path: Path) -> tuple[str, Content]:
    """Read an artifact of this version."""
    manifest = open_artifact(path).manifest
    found: Content = {}
    for kernel in manifest.kernels:
        name = f"{kernel.module}:{kernel.qualname}"
        for binary in kernel.binaries:
            found["cubin", name, binary.launch_key] = binary.cubin
        for row in kernel.choices:
            made = _choice(row.config.kwargs, [getattr(row.config, field) for field in _CONFIG], row.provenance)
            found["choice", name, json.dumps(list(row.key))] = made
    return manifest.identifier, found


def compare(old: dict[str, Content], new: dict[str, Content]) -> bool:
    """Print what differs, and return whether nothing does."""
    same = bool(old)
    for identifier in sorted({*old, *new}):
        before, after = old.get(identifier, {}), new.get(identifier, {})
        places = sorted({*before, *after})
        wrong = [place for place in places if before.get(place) != after.get(place)]
        binaries = sum(what == "cubin" for what, _, _ in places)
        print(f"{identifier}: {binaries} binaries, {len(places) - binaries} choices, {len(wrong)} differ")
        for place in wrong[:_SHOWN]:
            print(f"  {' '.join(place)}: {before.get(place)} before, {after.get(place)} now")
        same &= not wrong
    return same


def main() -> int:
    """Compare the folders."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    old, new = (sorted(Path(folder).rglob("*.tar.zst")) for folder in sys.argv[1:])
    return 0 if compare(dict(map(read_old, old)), dict(map(read_new, new))) else 1


if __name__ == "__main__":
    sys.exit(main())
