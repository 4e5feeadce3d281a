"""What kernels are called in records, where a process imports a copy of a provider under a name of its own.

Artifacts name kernels by the provider's package, whatever a copy of it is called: the name of a kernel of the Hub
changes with every revision, and serving processes recognize a kernel by its source.
"""

from __future__ import annotations

_names: list[tuple[str, str]] = []
"""(name that a copy is imported under, name in records); the two may be the same."""


def rename(package: str, recorded: str) -> None:
    """Call the modules of an imported package by another name in records."""
    _names[:] = [(package, recorded)]


def is_copy(module: str) -> bool:
    """Say whether a module of this process is of such a package."""
    return any(module.partition(".")[0] == package for package, _ in _names)


def recorded(module: str) -> str:
    """Return what a module of this process is called in records."""
    return next((_moved(module, package, name) for package, name in _names), module)


def imported(module: str) -> str:
    """Return what a module of a record is called in this process."""
    return next((_moved(module, name, package) for package, name in _names), module)


def _moved(module: str, package: str, to: str) -> str:
    top, dot, rest = module.partition(".")
    return to + dot + rest if top == package else module
