"""Make FLA use an artifact's configurations without gdn-aot: the other side of a comparison.

FLA reads configurations from ``$FLA_CONFIG_DIR/KERNEL.json`` if ``FLA_CACHE_MODE`` is ``strict``
(``fla/ops/utils/cache.py``, since 0.5): `export` writes such files. Kernels decorated with Triton's own autotuner
do not look there: `force` puts those into the autotuner.

    python -m gpu.fla_configs ARTIFACT DIRECTORY
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

Choices = dict[str, list[dict[str, Any]]]
"""``module:qualname`` -> choices, each with ``key`` and ``config``."""


def read_choices(artifact: Path) -> Choices:
    """Return the choices of an artifact file, as JSON can carry them."""
    from gdn_aot.artifact.verify import open_artifact

    return {
        f"{kernel.module}:{kernel.qualname}": [
            {
                "key": list(choice.key),
                "config": {
                    "kwargs": dict(choice.config.kwargs),
                    "num_warps": choice.config.num_warps,
                    "num_stages": choice.config.num_stages,
                    "num_ctas": choice.config.num_ctas,
                    "maxnreg": choice.config.maxnreg,
                },
            }
            for choice in kernel.choices
        ]
        for kernel in open_artifact(artifact).manifest.kernels
        if kernel.choices
    }


def export(choices: Choices, directory: Path) -> None:
    """Write one file for each kernel name.

    Raises:
        ValueError: Two kernels of one name have different configurations for one key.
    """
    files: dict[str, dict[str, Any]] = {}
    for name, found in choices.items():
        kernel = name.rpartition(":")[2]
        entries = files.setdefault(kernel, {})
        for choice in found:
            entry = {"autotune_key": choice["key"], "config": {**choice["config"], "ir_override": None}}
            if entries.setdefault(_digest(choice["key"]), entry) != entry:
                raise ValueError(f"two kernels are called {kernel}")
    directory.mkdir(parents=True, exist_ok=True)
    for kernel, entries in files.items():
        document = {"kernel_name": kernel, "autotune_entries": entries, "default_config": None}
        (directory / f"{kernel}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")


def _digest(key: list[Any]) -> str:
    """Return what ``AutotuneKey.key_hash`` of FLA returns."""
    text = json.dumps(key, separators=(",", ":"), sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def environment(directory: Path) -> dict[str, str]:
    """Return the variables that make FLA read the files."""
    return {"FLA_CACHE_MODE": "strict", "FLA_CONFIG_DIR": str(directory)}


def force(choices: Choices) -> list[str]:
    """Fill the caches of those autotuners that are Triton's own; return the kernels' names."""
    import triton
    from triton.runtime.autotuner import Autotuner

    forced = []
    for name, found in choices.items():
        module, _, qualname = name.partition(":")
        kernel: Any = getattr(importlib.import_module(module), qualname)
        while kernel is not None and not isinstance(kernel, Autotuner):
            kernel = getattr(kernel, "fn", None)
        if type(kernel) is not Autotuner:
            continue
        for choice in found:
            kernel.cache[tuple(choice["key"])] = triton.Config(**choice["config"])
        forced.append(name)
    return forced


if __name__ == "__main__":
    export(read_choices(Path(sys.argv[1])), Path(sys.argv[2]))
