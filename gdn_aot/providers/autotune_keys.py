"""The names of the values in autotune keys: ``autotune_keys.toml``, in which only the providers' kernels are."""

from __future__ import annotations

import functools
from pathlib import Path

from gdn_aot._files import parse_toml


def key_names(kernel: str, count: int) -> tuple[str, ...] | None:
    """Return the names in ``key=`` of a kernel, if those of a list of this length are known.

    Args:
        kernel: ``module:qualname``.
        count: Number of values that its keys have, number types not counted.
    """
    module, _, name = kernel.partition(":")
    lists = (*_table().get(f"{module.partition('.')[0]}:{name}", ()), *_table().get(name, ()))
    return next((names for names in lists if len(names) == count), None)


@functools.cache
def _table() -> dict[str, list[tuple[str, ...]]]:
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return {kernel: [tuple(names) for names in lists] for kernel, lists in parse_toml(text).items()}
