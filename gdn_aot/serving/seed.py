"""Seed the kernels of a module that was just imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdn_aot.errors import GdnAotError
from gdn_aot.serving import log
from gdn_aot.serving.kernels import Kernel
from gdn_aot.serving.match import MismatchError, locate, match
from gdn_aot.triton_internals import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.serving.state import State
    from gdn_aot.store.index_records import KernelRecord
    from gdn_aot.store.stored import StoredArtifact


def seed(state: State, module: str) -> None:
    """Match every kernel that artifacts have of a module, and seed those that are theirs.

    Raises:
        UnsupportedTritonError: Triton's internals are not as known.
    """
    if not state.active:
        return
    if not state.checked:
        serving.check_serving()
        state.checked = True
    matched: dict[str, tuple[Any, Any, Any, list[StoredArtifact]]] = {}
    refused: dict[str, tuple[Any, Any, str]] = {}
    for found, record in _records(state, module):
        jit, tuner = None, None
        try:
            jit, tuner = locate(record)
            values = match(record, jit)
        except MismatchError as error:
            refused[record.name] = (jit, tuner, str(error))
        else:
            matched.setdefault(record.name, (jit, tuner, values, []))[3].append(found)
    for name in refused.keys() - matched.keys():
        _refuse(state, name, *refused[name])
    # Providers ask for the device while they are imported, and that takes seconds anyway; `install` is to take none.
    device = None if state.installing else serving.ready_device()
    for name, (jit, tuner, values, sources) in matched.items():
        state.refused.pop(name, None)
        kernel = state.kernels[name] = Kernel(state, name, jit, tuner, sources)
        kernel.seed(values)
        if device is not None:
            kernel.prepare(device)


def _records(state: State, module: str) -> Iterator[tuple[StoredArtifact, KernelRecord]]:
    for found in list(state.found):
        try:
            records = found.index.kernels()
        except (GdnAotError, OSError, ValueError) as error:
            state.distrust(found, error)
            continue
        yield from ((found, record) for record in records if record.module == module)


def _refuse(state: State, name: str, jit: Any, tuner: Any, reason: str) -> None:
    state.refused[name] = reason
    state.kernels.pop(name, None)
    say = log.info if state.told_refusal else log.warn
    state.told_refusal = True
    say(f"{reason}: the kernels that this concerns are left to Triton; gdn-aot doctor names all")
    if state.strict and jit is not None:
        Kernel(state, name, jit, tuner, [], refusal=reason).seed({})
