"""Seed the kernels of a module that was just imported, if they are those that an artifact was compiled from.

The module is one of the provider's, or one in the same place of another package: a copy of the provider, as kernels
of the Hub are. Of a copy that differs nothing is said before a kernel of it is launched; see `unserved`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gdn_aot._text import shown
from gdn_aot.errors import UnsupportedTritonError
from gdn_aot.serving import log, unserved
from gdn_aot.serving.kernels import ServedKernel
from gdn_aot.serving.matching import AbsentError, MismatchError, OtherGlobalError, locate, match, match_copy
from gdn_aot.triton_internals import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gdn_aot.serving.state import State
    from gdn_aot.store.index_records import KernelRecord
    from gdn_aot.store.stored import StoredArtifact

_MOST = 500
"""Characters of a reason, which may name files and values of globals."""


class _Matched(NamedTuple):
    """A kernel that is an artifact's."""

    jit: Any
    tuner: Any
    values: Any
    """The globals that it reads, as `match` returns them."""
    recorded: str
    """What artifacts call it."""
    sources: list[StoredArtifact]
    elsewhere: list[StoredArtifact]
    """Compiled from it as its provider makes it where the first device is another: see `ServedKernel`."""


def seed(state: State, module: str) -> bool:
    """Match every kernel that artifacts have of a module, and seed those that are theirs. Returns whether any was.

    Raises:
        UnsupportedTritonError: Triton's internals are not as known.
    """
    if not state.active:
        return False
    if not state.checked:
        serving.check_serving()
        state.checked = True
    matched, refused = _matched(state, module)
    for name in refused.keys() - matched.keys():
        _refuse(state, name, *refused[name])
    # Providers ask for the device while they are imported, and that takes seconds anyway; `install` is to take none.
    device = None if state.installing else serving.ready_device()
    for name, found in matched.items():
        try:
            given = found.jit, found.tuner, found.sources, found.elsewhere
            kernel = ServedKernel(state, name, *given, recorded=found.recorded)
            kernel.seed(found.values)
        except UnsupportedTritonError:
            raise
        except Exception as error:  # noqa: BLE001 - the other kernels are served
            log.detail(error)
            _refuse(state, name, found.jit, found.tuner, _reason(f"{name} cannot be seeded", error))
            continue
        state.refused.pop(name, None)
        state.kernels[name] = kernel
        if device is not None:
            _prepare(state, kernel, device)
    return any(name in state.kernels for name in matched)


def _matched(state: State, module: str) -> tuple[dict[str, _Matched], dict[str, tuple[Any, Any, str]]]:
    """Return the kernels of a module that are an artifact's, with what has them, and those that are not, and why."""
    matched: dict[str, _Matched] = {}
    refused: dict[str, tuple[Any, Any, str]] = {}
    elsewhere: dict[str, list[StoredArtifact]] = {}
    for found, record in _records(state, module):
        package = record.module.partition(".")[0]
        root = module[: len(module) - len(record.module) + len(package)]
        own = root == package and not found.elsewhere
        name, jit, tuner = shown(f"{module}:{record.qualname}"), None, None
        try:
            jit, tuner = locate(record, module)
            values = match(record, jit) if own else match_copy(record, jit, package, root)
        except AbsentError as error:
            if own and not _aside(state, found):  # else it is no copy, but a module that happens to have the name
                refused[name] = (jit, tuner, shown(error, _MOST))
        except MismatchError as error:
            if not _aside(state, found):
                refused[name] = (jit, tuner, shown(error, _MOST))
            if isinstance(error, OtherGlobalError):
                elsewhere.setdefault(name, []).append(found)
        except Exception as error:  # noqa: BLE001 - the record may hold anything, and so may the provider's module
            refused[name] = (jit, tuner, _reason(f"{record.name} cannot be compared", error))
            log.detail(error)
        else:
            others = elsewhere.setdefault(name, [])
            matched.setdefault(name, _Matched(jit, tuner, values, record.name, [], others)).sources.append(found)
        if not own and jit is not None:
            state.copies.setdefault(root, found.header["provider"])
    return matched, refused


def _aside(state: State, artifact: StoredArtifact) -> bool:
    """Say whether an artifact of another version lies beside one of the installed one, which is to have all kernels."""
    name = artifact.header["provider"]
    whole = (one.same is None and not one.elsewhere and one.header["provider"] == name for one in state.found)
    return artifact.same is not None and any(whole)


def _reason(what: str, error: Exception) -> str:
    return shown(f"{what}: {type(error).__name__}: {error}", _MOST)


def _prepare(state: State, kernel: ServedKernel, device: int) -> None:
    try:
        kernel.prepare(device)
    except UnsupportedTritonError:
        raise
    except Exception as error:  # noqa: BLE001 - its first launch does it again, and Triton then says what is wrong
        state.unexpected(kernel.name, error)


def _records(state: State, module: str) -> Iterator[tuple[StoredArtifact, KernelRecord]]:
    for found in list(state.found):
        try:
            records = [record for record in found.index.kernels() if _stands_for(module, record.module)]
        except Exception as error:  # noqa: BLE001 - the index may hold anything
            state.distrust(found, error)
            continue
        yield from ((found, record) for record in records)


def _stands_for(module: str, recorded: str) -> bool:
    """Say whether a module is the recorded one, or in its place in another package."""
    _, dot, rest = recorded.partition(".")
    return module == recorded or (bool(dot) and module.endswith(dot + rest))


def _refuse(state: State, name: str, jit: Any, tuner: Any, reason: str) -> None:
    state.refused[name] = reason
    state.kernels.pop(name, None)
    if state.copied_from(name) is not None:
        if jit is not None:
            unserved.watch(state, jit, refused=True)  # it may never be launched
        return
    say = log.info if state.told_refusal else log.warn
    state.told_refusal = True
    say(f"{reason}: Triton compiles these kernels; gdn-aot doctor names them")
    if state.strict and jit is not None:
        ServedKernel(state, name, jit, tuner, [], refusal=reason).seed({})
