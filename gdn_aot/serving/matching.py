"""Whether a kernel of this process is the one that an artifact was compiled from.

A binary may only be used for the very text that it was compiled from. The provider's own modules are compared by
their files, the texts of the kernel and of every function that it calls, and the values of the globals that they
read. In a copy of them in another package (a kernel of the Hub, a vendored folder) imports differ, and with them the
files: there every name that the code reads is followed, which is what Triton's own ``cache_key`` is made of.
``cache_key`` itself walks syntax trees, which takes longer than all of this loader.
"""

from __future__ import annotations

import hashlib
import os
import sys
from typing import TYPE_CHECKING, Any

from gdn_aot.machine.installed import source_sha256
from gdn_aot.triton_internals import layers, source_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import CodeType

    from gdn_aot.store.index_records import KernelRecord

    Globals = dict[str, tuple[Any, dict[str, Any]]]
    """Name -> (value, dictionary that holds it) of what a kernel reads."""

_MISSING = object()
_USUAL = {"tl": "triton.language", "triton": "triton"}
"""Names of modules whose functions artifacts do not list -> the module that each has to be."""


class MismatchError(Exception):
    """The kernel is not the artifact's; the message says why."""


class AbsentError(MismatchError):
    """There is no Triton kernel of this name."""


class OtherGlobalError(MismatchError):
    """The kernel is the artifact's, but for values of globals that it reads."""


def locate(record: KernelRecord, module: str) -> tuple[Any, Any]:
    """Return a kernel's ``JITFunction`` and its ``Autotuner`` or None, of a module that was imported.

    Raises:
        AbsentError: There is no such kernel.
    """
    kernel = _attribute(sys.modules[module], record.qualname)
    if kernel is _MISSING:
        raise AbsentError(f"{module} has no {record.qualname}")
    try:
        return layers(kernel)
    except TypeError:
        raise AbsentError(f"{record.qualname} is not a Triton kernel in this process") from None


def match(record: KernelRecord, jit: Any) -> Globals:
    """Check that a ``JITFunction`` of the provider's own package is the one that an artifact was compiled from.

    Returns name -> (value, dictionary that holds it) of the globals that it reads.

    Raises:
        MismatchError: It is another, with the reason.
    """
    _check_files(sys.modules[record.module], record)
    _check_text(jit, record.qualname, record.source_sha256)
    scopes = [jit.fn.__globals__, *_check_dependencies(record, jit.fn.__globals__)]
    return {name: _check_global(name, value, scopes) for name, value in record.globals}


def match_copy(record: KernelRecord, jit: Any, package: str, root: str) -> Globals:
    """Check that a ``JITFunction`` of another package means what the one does that an artifact was compiled from.

    ``package`` is the provider's, ``root`` the one that stands here for it. Returns what `match` does.

    Raises:
        MismatchError: It means something else, or may do so.
    """
    _check_text(jit, record.qualname, record.source_sha256)
    scopes, pending = [jit.fn.__globals__], [jit]
    for function in pending:
        scope = function.fn.__globals__
        for name in _read(function.fn.__code__):
            if name in scope:
                called = _check_read(record, name, scope[name], (package, root))
                pending += [one for one in called if all(one is not other for other in pending)]
    scopes += [one.fn.__globals__ for one in pending[1:]]
    return {name: _check_global(name, value, scopes) for name, value in record.globals}


def _check_read(record: KernelRecord, name: str, value: Any, packages: tuple[str, str]) -> list[Any]:
    """Check what a name of a copy's code stands for; return the functions that have to be looked at, too."""
    if any(name == known for known, _ in record.globals):
        return []  # its value is compared for all that read it
    paths = dict.fromkeys(row[0] for row in record.dependencies if row[0].partition(".")[0] == name)
    module = getattr(value, "__name__", None) if type(value) is type(sys) else None
    if module is not None and _USUAL.get(name) == module:
        return []
    if isinstance(value, type) and value.__module__.partition(".")[0] == "triton" and value.__name__ == name:
        return []
    called = []
    for path in paths:
        found = value if path == name else _attribute(value, path.partition(".")[2])
        rows = [row for row in record.dependencies if row[0] == path]
        if not any(_is_called(found, row, packages, alone=len(rows) == 1) for row in rows):
            raise MismatchError(f"{path} in {record.qualname} is not the function that the artifact was built with")
        called += [found] if hasattr(found, "raw_src") and rows[0][3] else []
    if not paths:
        raise MismatchError(f"{record.qualname} reads {name}, which the artifact does not have as it is here")
    return called


def _is_called(found: Any, row: tuple[str, str, str, str], packages: tuple[str, str], *, alone: bool) -> bool:
    """Say whether a function is the one of a dependency; by its text, and by its place if others go by its name."""
    _, module, qualname, expected = row
    plain = getattr(found, "fn", found)
    place = (getattr(plain, "__module__", None), getattr(plain, "__qualname__", None))
    if not expected:
        return place == (module, qualname)
    text = source_text(found)
    if text is None or hashlib.sha256(text.encode()).hexdigest() != expected:
        return False
    package, root = packages
    return alone or place == (root + module[len(package) :] if module.startswith(f"{package}.") else module, qualname)


def _read(code: CodeType) -> Iterator[str]:
    """Yield the names of globals that some code reads."""
    import dis

    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield step.argval
    for constant in code.co_consts:
        if type(constant) is type(code):
            yield from _read(constant)


def _check_files(module: Any, record: KernelRecord) -> None:
    file = getattr(module, "__file__", None)
    if file is None:
        raise MismatchError(f"{record.module} is not from a file")
    root = os.path.abspath(file)
    for _ in range(record.module.count(".") + (2 if os.path.basename(root) == "__init__.py" else 1)):
        root = os.path.dirname(root)
    for path, expected in record.sources:
        if source_sha256(f"{root}/{path}") != expected:
            raise MismatchError(f"{path} is not the file that the artifact was built from")


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
