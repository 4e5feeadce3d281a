"""Import a copy of a provider from a folder, in a process where it stands for the provider itself."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from typing import TYPE_CHECKING

from gdn_aot.triton_internals import naming

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def stand_in(folder: str, module: str, package: str) -> None:
    """Import the package in ``folder`` as ``module``; whoever then imports ``package`` gets it and its modules.

    Records call it ``package``.

    Raises:
        ImportError: It cannot be imported.
    """
    naming.rename(module, package)
    if module != package:
        sys.meta_path.insert(0, _Renaming(package, module))
    spec = importlib.util.spec_from_file_location(module, f"{folder}/__init__.py", submodule_search_locations=[folder])
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} is no package")
    made = sys.modules[module] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)


class _Renaming(MetaPathFinder):
    """Finds the modules of one package under the name of another."""

    def __init__(self, package: str, module: str) -> None:
        self._package, self._module = package, module

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return a spec whose module is that of the other package, if it is of ours."""
        del path, target
        top, dot, rest = name.partition(".")
        if top != self._package:
            return None
        return importlib.util.spec_from_loader(name, _Same(self._module + dot + rest))


class _Same(Loader):
    """Gives a module that is imported under another name, as it is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import it by its own name."""
        del spec
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave it as it was before the import system took it for a new one."""
        module.__spec__ = self._spec
