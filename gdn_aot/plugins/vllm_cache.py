"""Spare vLLM's start what an artifact has of its compile cache, if the user asks for it: vLLM runs what is in there.

vLLM looks for it when a worker calls the model first, long after it has called its plugins in that process.
"""

from __future__ import annotations

import sys

from gdn_aot._text import plural, shown
from gdn_aot.artifact.cached import FOLDER, SWITCH
from gdn_aot.machine import installed
from gdn_aot.plugins.vllm_start import ENVIRONMENT
from gdn_aot.serving import caching, log
from gdn_aot.serving.placing import WRITTEN
from gdn_aot.serving.settings import asked

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from gdn_aot.store.index_records import CacheRecord


def place(found: list[Any]) -> None:
    """Put compile caches of artifacts where this vLLM looks for them, if `SWITCH` asks for it. Raises nothing.

    ``found`` has the artifacts that are served from, as `gdn_aot.store.stored.StoredArtifact`.
    """
    having = [artifact for artifact in found if artifact.header.get("compile_cache")]
    environment: Any = sys.modules.get(ENVIRONMENT)
    if environment is None:
        return
    for artifact in having:
        name = shown(artifact.header["identifier"])
        try:
            _place(artifact, name, environment)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except OSError as error:
            log.warn(f"vLLM compiles itself: the compile cache of {name} cannot be put in place: {shown(error)}")
        except BaseException as error:  # noqa: BLE001 - vLLM's start goes on, and compiles itself
            log.warn(f"vLLM compiles itself: the compile cache of {name}: {type(error).__name__}: {shown(error)}")
            log.detail(error)


def _place(artifact: Any, name: str, environment: Any) -> None:
    wanted, root = asked(SWITCH), str(environment.VLLM_CACHE_ROOT)
    cache = artifact.index.compile_cache() if wanted or artifact.is_read else None
    missing = caching.missing(cache, root) if cache is not None else {}
    if cache is not None and not missing:
        log.info(f"vLLM has the compile cache of {name} already")
        return
    what = f"vLLM's compile cache of {name} ({plural(artifact.header['compile_cache'], 'file')})"
    if not wanted or cache is None:
        _tell(f"{what} is not put in place, as vLLM would run the code in it: {SWITCH}=1 if you trust who built it")
    elif differs := _differs(cache, artifact.header, environment):
        _tell(f"{what} is not put in place: {differs}")
    elif WRITTEN in caching.place(missing, artifact, root).values():
        log.notice(f"placed {what} in {shown(root)}/{FOLDER}, where vLLM looks before it compiles")


def _tell(message: str) -> None:
    """Say something once for all processes of one engine: the others are children of the first."""
    multiprocessing: Any = sys.modules.get("multiprocessing")
    child = multiprocessing is not None and multiprocessing.parent_process() is not None
    (log.info if child else log.notice)(message)


def _differs(cache: CacheRecord, header: Mapping[str, Any], environment: Any) -> str:
    """Return why vLLM would not use a compile cache, or nothing.

    What decides is vLLM's own key, which is known only when the engine is there. This is what is known before.
    """
    torch: Any = sys.modules.get("torch")
    rows = (
        ("vLLM", _public(header["version"]), _public(installed.version(header["distribution"]) or "")),
        ("PyTorch", cache.torch, str(getattr(torch, "__version__", ""))),
        ("Python", cache.python, ".".join(map(str, sys.version_info[:3]))),
        ("the GPU", _whole(cache.card), _whole(_card())),
    )
    for what, made, here in rows:
        if made and here and made != here:
            return f"it was made with {what} {shown(made)}, and here is {shown(here)}"
    for variable, made in cache.environment:
        value: Any = getattr(environment, variable, None)
        if value is not None and str(value) != made:
            return f"it was made with {shown(variable)}={shown(made)}, and here that is {shown(value)}"
    return ""


def _public(version: str) -> str:
    """Return a version without its local part: 0.24.0+cu129 is built from the sources of 0.24.0."""
    return version.partition("+")[0]


def _whole(card: str) -> str:
    """Return the name of a GPU without that of a part of it, which PyTorch has and NVML has not."""
    return card.partition(" MIG ")[0]


def _card() -> str:
    """Return the name of the GPU as vLLM's platform has it, or nothing where that would need CUDA to say it.

    A process that will fork must not touch CUDA. The platform of usual GPUs asks NVML.
    """
    platform: Any = (
        vars(sys.modules["vllm.platforms"]).get("_current_platform") if "vllm.platforms" in sys.modules else None
    )
    try:
        return str(platform.get_device_name()) if hasattr(platform, "_get_physical_device_name") else ""
    except Exception:  # noqa: BLE001 - no card, or none that NVML knows
        return ""
