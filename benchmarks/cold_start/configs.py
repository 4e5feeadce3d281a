"""An artifact's choices as the configuration files that FLA reads with ``FLA_CACHE_MODE``.

``$FLA_CONFIG_DIR/<kernel>.json`` holds ``autotune_entries``: the MD5 of the autotune key as compact JSON -> the key and
its configuration (fla/ops/utils/cache.py: ``KernelConfigFile``, ``AutotuneKey.key_hash``).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from msgspec import structs

if TYPE_CHECKING:
    from pathlib import Path

    from gdn_aot.artifact.manifest import Manifest


def export(manifest: Manifest, folder: Path) -> dict[str, int]:
    """Write the files. Returns how many files and entries, and how many entries two kernels of one name dispute.

    FLA names files by the kernel's function alone, so kernels of one name in two modules share a file; of two entries
    with one key the first stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, Any]] = {}
    disputed = 0
    for kernel in manifest.kernels:
        name = kernel.qualname.rpartition(".")[2]
        entries = files.setdefault(name, {}) if kernel.choices else {}
        for choice in kernel.choices:
            key = list(choice.key)
            compact = json.dumps(key, separators=(",", ":"), sort_keys=True)
            config = {**structs.asdict(choice.config), "kwargs": dict(choice.config.kwargs)}
            entry = {"autotune_key": key, "config": config}
            known = entries.setdefault(hashlib.md5(compact.encode()).hexdigest(), entry)  # noqa: S324 - FLA's own
            disputed += known != entry
    for name, entries in files.items():
        document = {
            "kernel_name": name,
            "triton_version": manifest.triton.version,
            "autotune_entries": entries,
            "default_config": None,
        }
        (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    return {"files": len(files), "entries": sum(map(len, files.values())), "disputed": disputed}
