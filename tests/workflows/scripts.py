"""The scripts in ``.github/scripts``, as modules."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

from helpers import ROOT

if TYPE_CHECKING:
    from types import ModuleType


def script(name: str) -> ModuleType:
    """Return a script as a module of its own."""
    known = f"github_script_{name}"
    spec = importlib.util.spec_from_file_location(known, ROOT / ".github/scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module
    spec.loader.exec_module(module)
    return module
