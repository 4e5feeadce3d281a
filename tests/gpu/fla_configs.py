"""Make FLA use an artifact's configurations without gdn-aot: the other side of a comparison.

FLA reads configurations from files: see `gdn_aot.providers.fla.configs`, with which `export` writes them. Kernels
decorated with Triton's own autotuner do not look there: `force` puts those into the autotuner.
"""

import importlib
import importlib.metadata
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from gdn_aot.launches import Config
from gdn_aot.providers.fla import configs as fla_configs
from gdn_aot.providers.fla.configs import environment
from gdn_aot.triton_internals.autotune_keys import with_alike

__all__ = ["Choices", "environment", "export", "force", "read_choices"]

Choices = dict[str, list[dict[str, Any]]]
"""``module:qualname`` -> choices, each with ``key`` and ``config``."""


def read_choices(artifact: Path) -> Choices:
    """Return the choices of an artifact file, as JSON can carry them."""
    from gdn_aot.artifact.verify import open_artifact

    return {
        kernel.name: [
            {"key": list(key), "config": {**asdict(config), "kwargs": dict(config.kwargs)}}
            for key, config in with_alike(
                [(choice.key, choice.config) for choice in kernel.choices],
                [relaxed.row for relaxed in kernel.relaxations],
            )
        ]
        for kernel in open_artifact(artifact).manifest.kernels
        if kernel.choices
    }


def export(choices: Choices, directory: Path) -> None:
    """Write one file for each kernel that FLA looks up in files.

    Raises:
        UsageError: Two kernels of one name have different configurations for one key.
    """
    listed = [
        fla_configs.ExportedChoice(kernel=name, key=tuple(choice["key"]), config=_config(**choice["config"]))
        for name, found in choices.items()
        for choice in found
    ]
    fla_configs.write(fla_configs.prepare(listed, importlib.metadata.version("triton")), directory)


def _config(*, kwargs: dict[str, Any], **options: Any) -> Config:
    return Config(kwargs=tuple(kwargs.items()), **options)


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
