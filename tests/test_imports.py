"""What importing loads: serving processes import gdn_aot, and people type ``gdn-aot --help``."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "triton", "huggingface_hub", "zstandard", "fla", "numpy")


def loaded(code: str) -> set[str]:
    """Run code in a fresh interpreter and return the top-level names of the modules it loaded."""
    report = f"{code}\nimport sys; print('MODULES', *{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.rpartition("MODULES ")[2].split())


def test_import_loads_nothing_heavy() -> None:
    assert not loaded("import gdn_aot") & {*HEAVY, "click"}


@pytest.mark.parametrize("args", [["--help"], ["models"], ["models", "--json"], ["targets"], ["providers"], ["nope"]])
def test_light_commands_load_nothing_heavy(args: list[str]) -> None:
    assert not loaded(f"from gdn_aot.cli.main import run; run({args!r})") & {*HEAVY}
