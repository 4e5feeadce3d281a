"""Call a function right after a module of a given name, or with a given end of its name, was imported."""

from __future__ import annotations

import sys
from _thread import get_ident

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    Callback = Callable[[str], None]

_FIND_MODULE = sys.version_info < (3, 12)
"""Python asks finders of the old kind, which have ``find_module`` alone."""


class ImportHook:
    """A finder on ``sys.meta_path`` that finds nothing by itself: it notices the import of modules waited for.

    The callback runs after the module's body and before whoever imported it goes on, and again if the module is
    reloaded. What it raises is raised by the import; nothing else of an import is changed by the hook.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[Callback, ...]] = {}
        self._ends: dict[str, dict[str, Callback]] = {}
        """Last part of a module's name -> ends of names that are waited for, such as ``.ops.common.chunk_o``."""
        self._half: list[str] = []
        """Modules that were being imported when they were asked for: looked at again at the next import."""
        self._asking: set[tuple[int, str]] = set()
        """(thread, module) of those that the finders after this one are being asked for."""

    def after_import(self, name: str, callback: Callback) -> None:
        """Call ``callback(name)`` each time the module was imported: now, if it was already.

        Others that wait for the module are called before it, then too: a callback must do no harm twice.
        """
        known = self._waiting.get(name, ())
        if callback not in known:
            self._waiting[name] = (*known, callback)
        self._take_place()
        if sys.modules.get(name) is not None:
            self._half.append(name)
            self._look_again()

    def after_imports_ending(self, ends: Iterable[str], callback: Callback) -> None:
        """Call ``callback(name)`` each time a module was imported whose name ends so, in whatever package it is.

        Of those that were imported already, now. An end begins with a dot.
        """
        for end in ends:
            self._ends.setdefault(end.rpartition(".")[2], {})[end] = callback
        self._take_place()
        last = [name for name in list(sys.modules) if name[name.rfind(".") + 1 :] in self._ends]
        self._half += [name for name in last if name not in self._waiting and self._callbacks(name)]
        self._look_again()

    def _take_place(self) -> None:
        if not any(finder is self for finder in sys.meta_path):
            sys.meta_path.insert(0, self)

    def _callbacks(self, name: str) -> tuple[Callback, ...]:
        waiting = self._waiting.get(name)
        if waiting is not None:
            return waiting
        ends = self._ends.get(name[name.rfind(".") + 1 :], {})
        return next(((ends[end],) for end in ends if name.endswith(end)), ())

    def remove(self) -> None:
        """Stop waiting.

        The finder stays where it is, and finds nothing: Python may be walking along ``sys.meta_path``, and would pass
        over the finder that follows.
        """
        self._waiting.clear()
        self._ends.clear()
        self._half.clear()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return what the finders after this one find, with a loader that calls back.

        Returns None for a module not waited for, and where one of them asks in turn for what it is asked for.
        """
        if self._half:
            self._look_again()
        if name not in self._waiting and name[name.rfind(".") + 1 :] not in self._ends:
            return None  # as nearly all: quick
        asked = (get_ident(), name)
        if asked in self._asking or not self._callbacks(name):
            return None
        self._asking.add(asked)
        try:
            spec = _ask(self, name, path, target)
        finally:
            self._asking.discard(asked)
        if spec is not None:
            self._watch(spec)
        return spec

    def _watch(self, spec: ModuleSpec) -> None:
        """Have the loader of a spec call back, once. Of a namespace without a loader there is nothing to wait for."""
        loader: Any = spec.loader
        if isinstance(loader, _Wrapping) and loader.calls(self._done):
            return
        lazy = getattr(sys.modules.get("importlib.util"), "LazyLoader", None)
        if lazy is not None and type(loader) is lazy:  # the module's body runs later, by the loader within
            loader.loader = _Loader(loader.loader, spec, self._done)
        elif hasattr(loader, "exec_module"):
            spec.loader = _Loader(loader, spec, self._done)  # type: ignore[assignment]
        elif hasattr(loader, "load_module"):
            spec.loader = _OldLoader(loader, spec, self._done)  # type: ignore[assignment]

    def _done(self, name: str) -> None:
        for callback in self._callbacks(name):
            callback(name)

    def _look_again(self) -> None:
        half, self._half = self._half, []
        for name in half:
            module = sys.modules.get(name)
            if module is None:
                continue  # its import failed; the next one is noticed
            try:
                spec = object.__getattribute__(module, "__spec__")  # of a lazy module, without loading it
            except AttributeError:
                spec = None
            if getattr(spec, "_initializing", False):
                self._half.append(name)
            elif spec is not None and type(module) is getattr(sys.modules.get("importlib.util"), "_LazyModule", None):
                self._watch(spec)
            else:
                self._done(name)


def _ask(hook: ImportHook, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    """Return what the finders after a hook find, asked as the running Python asks them."""
    finders = iter(list(sys.meta_path))
    any(finder is hook for finder in finders)  # those before it have been asked
    for finder in finders:
        find = getattr(finder, "find_spec", None)
        if find is not None:
            spec: ModuleSpec | None = find(name, path, target)
        elif _FIND_MODULE:
            spec = _find_module(finder, name, path)
        else:
            continue
        if spec is not None:
            return spec
    return None


def _find_module(finder: Any, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    from importlib.util import spec_from_loader

    loader = finder.find_module(name, path)
    return None if loader is None else spec_from_loader(name, loader)


def _itself(loader: Any) -> Any:
    return loader


class _Wrapping:
    """Is what the loader that it wraps is; once asked to load, it puts that in its own place in the spec."""

    def __init__(self, wrapped: Any, spec: ModuleSpec, callback: Callback) -> None:
        self._wrapped, self._spec, self._callback = wrapped, spec, callback

    def __getattr__(self, name: str) -> Any:
        if name in ("_wrapped", "_spec", "_callback"):  # not initialized
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    def __reduce__(self) -> Any:
        """Copies and pickles are of the wrapped loader alone."""
        return _itself, (self._wrapped,)

    def calls(self, callback: Callback) -> bool:
        """Say whether it is this that is called back."""
        return self._callback == callback

    def _give_way(self) -> None:
        spec: Any = self._spec
        if spec.loader is self:
            spec.loader = self._wrapped
        elif getattr(spec.loader, "loader", None) is self:
            spec.loader.loader = self._wrapped


class _Loader(_Wrapping):
    """Loads as the loader that it wraps does, and calls back."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's body, then call back."""
        name = self._spec.name
        self._give_way()
        for holder, attribute in ((module, "__loader__"), (getattr(module, "__spec__", None), "loader")):
            if getattr(holder, attribute, None) is self:
                setattr(holder, attribute, self._wrapped)
        self._wrapped.exec_module(module)
        self._callback(name)


class _OldLoader(_Wrapping):
    """The same for a loader of the old kind, which creates and runs a module in one call."""

    def load_module(self, name: str) -> ModuleType:
        """Load the module, then call back."""
        self._give_way()
        module: ModuleType = self._wrapped.load_module(name)
        self._callback(name)
        return module
