"""Load the served model's kernels at a step of an engine's start, before there is traffic.

An engine counts what is in use on the device when it measures how much memory is left for its caches, whoever took it.
Modules that are loaded before are therefore counted; those that are loaded later come out of what it leaves free.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from gdn_aot._text import shown
from gdn_aot.plugins.engine import ENDS, hold
from gdn_aot.serving import log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gdn_aot.plugins.engine import Ends

_MARK = "_gdn_aot_preloads"
DTYPES = {"torch.bfloat16": "bf16", "torch.float16": "fp16"}
"""What a row of an artifact's models calls them."""
_LATER = "; the first launches load kernels"


def watch(module: str, holder: str, method: str, load: Callable[[Any], None], ends: Ends = ENDS) -> None:
    """Have a method of a class load kernels first. Of an engine that has none, nothing is changed.

    Args:
        module: The module of the engine, which was imported.
        holder: The class in it.
        method: The method.
        load: Called with what the method is called on.
        ends: What is not held back of what goes wrong.
    """

    def put() -> None:
        found: Any = getattr(sys.modules.get(module), holder, None)
        original = vars(found).get(method) if isinstance(found, type) else None
        if hasattr(original, _MARK):
            return
        if not callable(original):
            log.notice(f"{module} has no {method} that is known; kernels are loaded when they are first launched")
            return
        setattr(found, method, _loading_first(original, load))

    hold(put, f"{module} cannot be watched", _LATER, ends=ends)


def _loading_first(original: Any, load: Callable[[Any], None]) -> Any:
    @functools.wraps(original)
    def loading_first(owner: Any, *args: Any, **kwargs: Any) -> Any:
        load(owner)
        return original(owner, *args, **kwargs)

    setattr(loading_first, _MARK, True)
    return loading_first


def load(shape_of: Callable[[], Mapping[str, object] | None], when: str, ends: Ends = ENDS) -> None:
    """Load the kernels that artifacts have for the served model onto its device, and say so. Raises only ``ends``.

    Args:
        shape_of: Gives the shape of the model's GDN layers, as rows of an artifact's models have it, or None.
        when: When that is, as the line says it.
        ends: What is not held back of what goes wrong.
    """
    hold(lambda: _load(shape_of(), when), "preload", _LATER, ends=ends)


def _load(shape: Mapping[str, object] | None, when: str) -> None:
    from gdn_aot.catalogue.rows import USUAL
    from gdn_aot.serving import loader
    from gdn_aot.serving.advice import cover_shape
    from gdn_aot.serving.preload import load_shape

    loaded = load_shape(shape)
    if not loaded.artifacts:
        return  # the loader said why
    told = f"loaded {loaded.modules} modules of {loaded.kernels} kernels from {shown(', '.join(loaded.artifacts))}, "
    told += f"{loaded.bytes / (1 << 20):.1f} MiB, {when}"
    if loaded.models or loaded.captured or not shape:
        log.notice(told)
    else:
        served = ", ".join(f"{name} {value}" for name, value in shape.items() if value not in (None, USUAL.get(name)))
        covered = cover_shape(loader.state().found[0].header, shape)
        log.warn(f"no artifact has the served model's shape ({served}); {told}. {covered}")
