"""Play what tests of first launches do: each in a fork of one process, in which Triton is imported once."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from helpers import ROOT, SUPPORT, python

PRELUDE = f"""
import json, sys
sys.path[:0] = [{str(SUPPORT)!r}, {str(ROOT / "tests/triton_versions")!r}]
import first_launch
print(json.dumps(first_launch.play(json.loads(sys.argv[1]))))
"""
COMMON = """
arguments = tuple(kernels.arguments().values())
def short(old): return dict([*old.items()][:-1])
def but(**changes): return lambda old: {**old, **changes}
"""


def play(codes: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what each piece of code answers, by its name."""
    home = tmp_path_factory.mktemp("home")
    codes = {name: COMMON + code for name, code in codes.items()}
    return python(PRELUDE, json.dumps(codes), home=home, extra={"TRITON_CACHE_DIR": str(home / "triton")})
