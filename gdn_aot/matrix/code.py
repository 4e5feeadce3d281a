"""The modules of this package that a build runs, found by their imports and not by importing them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ROOTS = ("gdn_aot.building.pipeline", "gdn_aot.compiling.worker")
"""A build and the process in which it traces; the module of its provider is the third."""
_ALONE = ("cli/build.py", "cli/_options.py")
"""They say what is built where the matrix does not. What they import besides does not reach an artifact."""


class Code:
    """A source tree of this package.

    Args:
        package: Its folder ``gdn_aot``.
    """

    def __init__(self, package: Path) -> None:
        self._package = package
        self._read: dict[Path, ast.Module] = {}

    def files(self, provider: str) -> frozenset[str]:
        """Return what a build for a provider runs, as paths from the package's folder, ``/`` between their parts."""
        found: dict[tuple[str, bool], Path] = {}
        left = [(name, True) for name in (*_ROOTS, f"gdn_aot.providers.{provider}.workloads")]
        while left:
            module, whole = left.pop()
            path = self._file(module)
            if (module, whole) in found or path is None:
                continue
            found[module, whole] = path
            left += [(module.rpartition(".")[0], False), *self._imported(path, whole=whole)]
        return frozenset(path.relative_to(self._package).as_posix() for path in found.values()).union(_ALONE)

    def _file(self, module: str) -> Path | None:
        package, *rest = module.split(".")
        if package != "gdn_aot":
            return None
        place = self._package.joinpath(*rest)
        candidates = (place.parent / f"{place.name}.py", place / "__init__.py") if rest else (place / "__init__.py",)
        return next((path for path in candidates if path.is_file()), None)

    def _imported(self, path: Path, *, whole: bool) -> Iterator[tuple[str, bool]]:
        """Yield (module, whether all of it counts) for what a file imports.

        Args:
            path: The file.
            whole: Also inside functions. A package that is only on the way to a module of it does not run its own.
        """
        if path not in self._read:
            self._read[path] = ast.parse(path.read_bytes(), str(path))
        for node in _running(self._read[path], whole=whole):
            if isinstance(node, ast.Import):
                yield from ((alias.name, True) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                yield from ((name, True) for name in inner)
                yield node.module, not all(self._file(name) for name in inner)


def _running(node: ast.AST, *, whole: bool) -> Iterator[ast.AST]:
    """Yield the nodes that run; those under ``if TYPE_CHECKING`` do not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for other in child.orelse:
                yield other
                yield from _running(other, whole=whole)
        elif whole or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _running(child, whole=whole)
