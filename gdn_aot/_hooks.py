"""Call a function right after a module of a given name was imported."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    Callback = Callable[[str], None]


class ImportHook:
    """A finder on ``sys.meta_path`` that finds nothing by itself: it notices the import of modules waited for.

    The callback runs after the module's body and before whoever imported it goes on, and again if the module is
    reloaded. What it raises is raised by the import.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Callback] = {}
        self._half: list[str] = []
        """Modules that were being imported when they were asked for: looked at again at the next import."""

    def after_import(self, name: str, callback: Callback) -> None:
        """Call ``callback(name)`` each time the module was imported: now, if it was already."""
        self._waiting[name] = callback
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        if name in sys.modules:
            self._half.append(name)
            self._look_again()

    def remove(self) -> None:
        """Stop waiting."""
        self._waiting.clear()
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return what the other finders find, with a loader that calls back; None for a module not waited for."""
        if self._half:
            self._look_again()
        if name not in self._waiting:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self._done)  # type: ignore[assignment]
                return spec
        return None

    def _done(self, name: str) -> None:
        callback = self._waiting.get(name)
        if callback is not None:
            callback(name)

    def _look_again(self) -> None:
        half, self._half = self._half, []
        for name in half:
            if getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False):
                self._half.append(name)
            else:
                self._done(name)


class _Loader:
    """Loads as the loader that it wraps does, puts that in its own place, and calls back."""

    def __init__(self, wrapped: Any, callback: Callback) -> None:
        self._wrapped, self._callback = wrapped, callback

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as the wrapped loader does."""
        made: ModuleType | None = self._wrapped.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's body, then call back."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._wrapped
        module.__loader__ = self._wrapped
        self._wrapped.exec_module(module)
        self._callback(module.__name__)
