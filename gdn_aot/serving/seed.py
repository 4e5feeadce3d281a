"""Seed the kernels of a module that was just imported, if they are those that an artifact was compiled from.

A binary may only be used for the very text that it was compiled from: that of the function, of every function it
calls and of the files they are in, and the values of the globals that they read. Triton's own ``cache_key`` says the
same by walking syntax trees, which takes longer than all of this loader.
"""

from __future__ import annotations

import hashlib
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from gdn_aot._files import file_sha256
from gdn_aot._text import shown
from gdn_aot.errors import UnsupportedTritonError
from gdn_aot.serving import log
from gdn_aot.serving.kernels import ServedKernel
from gdn_aot.triton_internals import layers, serving, source_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gdn_aot.serving.state import State
    from gdn_aot.store.index_records import KernelRecord
    from gdn_aot.store.stored import StoredArtifact

_MISSING = object()
_MOST = 500
"""Characters of a reason, which may name files and values of globals."""


class MismatchError(Exception):
    """The kernel is not the artifact's; the message says why."""


class OtherGlobalError(MismatchError):
    """The kernel is the artifact's, but for values of globals that it reads."""


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
    matched, refused = _matched(state, module)
    for name in refused.keys() - matched.keys():
        _refuse(state, name, *refused[name])
    # Providers ask for the device while they are imported, and that takes seconds anyway; `install` is to take none.
    device = None if state.installing else serving.ready_device()
    for name, (jit, tuner, values, *sources) in matched.items():
        try:
            kernel = ServedKernel(state, name, jit, tuner, *sources)
            kernel.seed(values)
        except UnsupportedTritonError:
            raise
        except Exception as error:  # noqa: BLE001 - the other kernels are served
            log.detail(error)
            _refuse(state, name, jit, tuner, _reason(f"{name} cannot be seeded", error))
            continue
        state.refused.pop(name, None)
        state.kernels[name] = kernel
        if device is not None:
            _prepare(state, kernel, device)


class _Matched(NamedTuple):
    """A kernel of this process, and the artifacts that were compiled from it."""

    jit: Any
    tuner: Any
    values: dict[str, tuple[Any, dict[str, Any]]]
    found: list[StoredArtifact]
    elsewhere: list[StoredArtifact]
    """Compiled from it as its provider makes it where the first device is another: see `ServedKernel`."""


def _matched(state: State, module: str) -> tuple[dict[str, _Matched], dict[str, tuple[Any, Any, str]]]:
    """Return the kernels of a module that are an artifact's, with what has them, and those that are not, and why."""
    matched: dict[str, _Matched] = {}
    refused: dict[str, tuple[Any, Any, str]] = {}
    elsewhere: list[tuple[str, StoredArtifact]] = []
    for found, record in _records(state, module):
        jit, tuner = None, None
        try:
            jit, tuner = locate(record)
            values = match(record, jit)
        except MismatchError as error:
            refused[shown(record.name)] = (jit, tuner, shown(error, _MOST))
            if isinstance(error, OtherGlobalError):
                elsewhere.append((record.name, found))
        except Exception as error:  # noqa: BLE001 - the record may hold anything, and so may the provider's module
            refused[shown(record.name)] = (jit, tuner, _reason(f"{record.name} cannot be compared", error))
            log.detail(error)
        else:
            matched.setdefault(record.name, _Matched(jit, tuner, values, [], [])).found.append(found)
    for name, found in elsewhere:
        if name in matched:
            matched[name].elsewhere.append(found)
    return matched, refused


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
            records = [record for record in found.index.kernels() if record.module == module]
        except Exception as error:  # noqa: BLE001 - the index may hold anything
            state.distrust(found, error)
            continue
        yield from ((found, record) for record in records)


def _refuse(state: State, name: str, jit: Any, tuner: Any, reason: str) -> None:
    state.refused[name] = reason
    state.kernels.pop(name, None)
    say = log.info if state.told_refusal else log.warn
    state.told_refusal = True
    say(f"{reason}: the kernels that this concerns are left to Triton; gdn-aot doctor names all")
    if state.strict and jit is not None:
        ServedKernel(state, name, jit, tuner, [], refusal=reason).seed({})


def locate(record: KernelRecord) -> tuple[Any, Any]:
    """Return a kernel's ``JITFunction`` and its ``Autotuner`` or None. Its module must have been imported.

    Raises:
        MismatchError: There is no such kernel.
    """
    kernel = _attribute(sys.modules[record.module], record.qualname)
    if kernel is _MISSING:
        raise MismatchError(f"{record.module} has no {record.qualname}")
    try:
        return layers(kernel)
    except TypeError:
        raise MismatchError(f"{record.qualname} is not a Triton kernel in this process") from None


def match(record: KernelRecord, jit: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Check that a ``JITFunction`` is the one that an artifact was compiled from.

    Returns name -> (value, dictionary that holds it) of the globals that it reads.

    Raises:
        MismatchError: It is another, with the reason.
    """
    _check_files(sys.modules[record.module], record)
    _check_text(jit, record.qualname, record.source_sha256)
    scopes = [jit.fn.__globals__, *_check_dependencies(record, jit.fn.__globals__)]
    return {name: _check_global(name, value, scopes) for name, value in record.globals}


def _check_files(module: Any, record: KernelRecord) -> None:
    file = getattr(module, "__file__", None)
    if file is None:
        raise MismatchError(f"{record.module} is not from a file")
    root = os.path.abspath(file)
    for _ in range(record.module.count(".") + (2 if os.path.basename(root) == "__init__.py" else 1)):
        root = os.path.dirname(root)
    for path, expected in record.sources:
        if _file_sha256(f"{root}/{path}") != expected:
            raise MismatchError(f"{path} is not the file that the artifact was built from")


@cache
def _file_sha256(path: str) -> str:
    try:
        return file_sha256(path)
    except OSError:
        return ""


def _check_text(function: Any, name: str, expected: str) -> None:
    text = source_text(function)
    if text is None or hashlib.sha256(text.encode()).hexdigest() != expected:
        raise MismatchError(f"the body of {name} is not the one that the artifact was built from")


def _check_dependencies(record: KernelRecord, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """Check every function that the kernel calls; return the globals of each."""
    scopes = [scope]
    for _, module_name, qualname, expected in record.dependencies:
        if not expected:
            continue  # Triton's own, which this version of Triton has as it was
        module = sys.modules.get(module_name)
        function = _attribute(module, qualname)
        _check_text(function, f"{module_name}.{qualname}", expected)
        scopes.append(function.fn.__globals__)
    for name, module_name, qualname, _ in record.dependencies:
        called = [value for value in (_attribute_in(held, name) for held in scopes) if value is not _MISSING]
        named = [getattr(value, "fn", value) for value in called]
        if not any((value.__module__, value.__qualname__) == (module_name, qualname) for value in named):
            raise MismatchError(f"{name} in {record.qualname} is not {module_name}.{qualname} in this process")
    return scopes[1:]


def _check_global(name: str, expected: str, scopes: list[dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
    found = [(scope[name], scope) for scope in scopes if name in scope]
    equal = [pair for pair in found if repr(pair[0]) == expected]
    if not equal or len(equal) != len(found):
        values = ", ".join(sorted({repr(value) for value, _ in found})) or "not set"
        raise OtherGlobalError(f"the global {name} is {values}; the artifact was built with {expected}")
    return equal[0]


def _attribute(module: Any, qualname: str) -> Any:
    found = module
    for part in qualname.split("."):
        found = getattr(found, part, _MISSING)
        if found is _MISSING:
            return _MISSING
    return found


def _attribute_in(scope: Mapping[str, Any], name: str) -> Any:
    base, _, rest = name.partition(".")
    found = scope.get(base, _MISSING)
    return _attribute(found, rest) if rest and found is not _MISSING else found
