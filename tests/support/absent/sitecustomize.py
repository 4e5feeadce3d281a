"""For every Python of a test: modules in place of those that SGLang imports and a machine without a GPU lacks."""

import importlib.abc
import importlib.machinery
import sys
from typing import Any
from unittest import mock

ABSENT = ("sgl_kernel", "torchvision")


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        del path, target
        wanted = name.partition(".")[0] in ABSENT
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if wanted else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        pass

    def exec_module(self, module: Any) -> None:
        module.__dict__["__getattr__"] = mock.MagicMock()


sys.meta_path.append(Absent())
