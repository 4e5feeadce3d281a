"""The machine: its devices, and the store on it."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from gdn_aot._files import nearest, read_regular
from gdn_aot._text import shown
from gdn_aot.doctor.section import make_section
from gdn_aot.errors import GdnAotError
from gdn_aot.store.install import size_of
from gdn_aot.store.whole import said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.doctor.section import Section
    from gdn_aot.machine.devices import Devices
    from gdn_aot.store.store import Store

_FORMAT_BYTES = 64
"""As much of ``format`` as is shown."""


def devices_section(devices: Devices) -> Section:
    """Return what the CUDA driver says."""
    hint = "see whether nvidia-smi works here, and how the container was given its GPUs"
    obstacles = [(devices.problem, hint)] if devices.driver == "broken" else ()
    return make_section("devices", asdict(devices), obstacles, _devices(devices))


def _devices(devices: Devices) -> Iterator[tuple[str, object]]:
    if devices.cuda or devices.kernel_driver:
        yield "driver", f"{devices.kernel_driver or 'version not known'}, for CUDA up to {devices.cuda or '?'}"
    if devices.visible is not None:
        yield "CUDA_VISIBLE_DEVICES", devices.visible or "empty"
    for device in devices.found:
        memory = f", {device.memory / (1 << 30):.1f} GiB" if device.memory is not None else ""
        yield f"device {device.index}", f"{device.target}, {device.name or 'without a name'}{memory}"
    if devices.problem:
        yield "none", devices.problem


def read_store(store: Store, instead: str | None) -> tuple[Section, list[str]]:
    """Return the section of a store, and the directories of its artifacts.

    That it does not exist is no problem, nor that it cannot be used if artifacts are taken from a path ``instead``.
    """
    root, places, problem = store.root, list[str](), ""
    try:
        problem = _unusable(root)
        places = store.artifacts()
    except (GdnAotError, OSError, ValueError) as error:
        problem = problem or said(error)
    place = nearest(root)
    facts = {
        "path": root,
        "exists": os.path.isdir(root),
        "writable": os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK),
        "format": _format(root),
        "artifacts_from": instead,
        "artifacts": len(places),
        "bytes": size_of(root),
        "problem": problem,
    }
    obstacles = [(problem, "set GDN_AOT_HOME to another directory")] if problem and not instead else ()
    return make_section("store", facts, obstacles), places


def _unusable(root: str) -> str:
    """Return why the loader finds nothing in a store that is there; to the loader it is just empty."""
    if not root:
        return "there is no directory that a store may be in"
    place = nearest(root)
    if not os.path.isdir(place):
        return f"{place} is not a directory"
    if not os.access(place, os.X_OK):
        return f"{place} cannot be entered"
    return ""


def _format(root: str) -> str | None:
    try:
        return shown(read_regular(f"{root}/format", _FORMAT_BYTES, follow=False).decode("ascii", "backslashreplace"))
    except OSError:
        return None
