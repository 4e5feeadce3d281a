"""Spare vLLM's start what an artifact has of it: the process that inspects a model class.

vLLM calls its plugins when its engine's arguments are made (``EngineArgs.__post_init__``), before it makes the
configuration of the model, which is what asks for the inspection.
"""

from __future__ import annotations

import sys

from gdn_aot._text import plural, shown
from gdn_aot.serving import log, placing

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any

ENVIRONMENT = "vllm.envs"
"""The module that says where vLLM's cache is; vLLM has imported it before it calls a plugin."""


def place(found: list[Any]) -> None:
    """Put the files of artifacts where this vLLM looks for them. Raises nothing, and reads nothing if there are none.

    ``found`` has the artifacts that are served from, as `gdn_aot.store.stored.StoredArtifact`.
    """
    having = [artifact for artifact in found if artifact.header["distribution"] == "vllm"]
    having = [artifact for artifact in having if artifact.header.get("placed")]
    package: Any = sys.modules.get("vllm")
    environment: Any = sys.modules.get(ENVIRONMENT)
    torch: Any = sys.modules.get("torch")
    amd = getattr(getattr(torch, "version", None), "hip", None)  # where a class may be another of the same package
    if not having or package is None or environment is None or amd:
        return
    try:
        cache = str(environment.VLLM_CACHE_ROOT)
        for artifact in having:
            _say(placing.place(artifact.index.placed(), artifact.read_blob, cache, package.__file__), cache)
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except OSError as error:
        log.info(f"vLLM inspects models itself: {shown(error)}")
    except BaseException as error:  # noqa: BLE001 - vLLM's start goes on, and inspects models itself
        log.warn(f"vLLM inspects models itself: {type(error).__name__}: {shown(error)}")
        log.detail(error)


def _say(done: dict[str, str], cache: str) -> None:
    written = [name for name, what in done.items() if what == placing.WRITTEN]
    if written:
        classes = plural(len(written), "model class", "model classes")
        log.notice(f"placed inspections of {classes} in {shown(cache)}: vLLM starts no process for them")
    for name, what in done.items():
        log.info(f"{shown(name)}: {shown(what, 1000)}")
