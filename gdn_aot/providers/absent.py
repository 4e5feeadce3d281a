"""Modules in place of packages that a provider imports and that are not here: compiled extensions, image decoders."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import ModuleType

_IMAGES = "torchvision"


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules that are not installed. They are empty, but for those that have whatever is asked of them.

    What is imported from an empty one is an empty module again.
    """

    def __init__(
        self, wanted: Callable[[str], object], anything: Callable[[str], object] = lambda _name: False
    ) -> None:
        self._wanted, self._anything = wanted, anything

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec for a module that is wanted, else None."""
        del path, target
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if self._wanted(fullname) else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """Leave it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module empty, or let it have whatever is imported from it."""
        if self._anything is not None and self._anything(module.__name__):
            module.__dict__["__getattr__"] = mock.MagicMock()


def _is_images(name: str) -> bool:
    return name.partition(".")[0] == _IMAGES


@contextmanager
def without_images() -> Iterator[None]:
    """Let models be imported where torchvision is not installed, as where torch is that for the CPU."""
    if importlib.util.find_spec(_IMAGES) is not None:
        yield
        return
    finder = Absent(_is_images, _is_images)
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in filter(_is_images, list(sys.modules)):
            del sys.modules[name]
