"""What importing costs: serving processes import gdn_aot, and people type ``gdn-aot --help``."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "triton", "huggingface_hub", "zstandard", "fla", "numpy")


def loaded(code: str) -> set[str]:
    """Run code in a fresh interpreter and return the top-level names of the modules it loaded."""
    report = f"{code}\nimport sys; print('MODULES', *{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.rpartition("MODULES ")[2].split())


def test_import_loads_nothing_heavy() -> None:
    assert not loaded("import gdn_aot; gdn_aot.install, gdn_aot.report, gdn_aot.preload") & {*HEAVY, "click"}


def test_import_takes_less_than_20_ms() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import gdn_aot"]
    best = min(
        int(match[1])
        for _ in range(3)
        for match in re.finditer(
            r"\|\s*(\d+) \| gdn_aot$",
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr,
            re.MULTILINE,
        )
    )
    assert best < 20_000  # microseconds


@pytest.mark.parametrize(
    "args", [["--help"], ["models"], ["models", "--json"], ["targets"], ["providers"], ["nope"]]
)
def test_light_commands_load_nothing_heavy(args: list[str]) -> None:
    assert not loaded(f"from gdn_aot.cli.main import run; run({args!r})") & {*HEAVY}


def test_help_takes_less_than_300_ms() -> None:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "gdn_aot", "--help"], capture_output=True, check=True, timeout=60
        )
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3
