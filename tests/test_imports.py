"""What importing loads: serving processes import gdn_aot, and people type ``gdn-aot --help``."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import factory
import pytest
from helpers import ROOT, TIMEOUT
from tuning_records import full

from gdn_aot._files import parse_toml
from gdn_aot.records.tuning import save

HEAVY = ("torch", "triton", "huggingface_hub", "zstandard", "fla", "numpy")


def loaded(code: str) -> set[str]:
    """Run code in a fresh interpreter and return the top-level names of the modules it loaded."""
    report = f"{code}\nimport sys; print('MODULES', *{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True, timeout=TIMEOUT)
    return set(done.stdout.rpartition("MODULES ")[2].split())


def test_import_loads_nothing_heavy() -> None:
    assert not loaded("import gdn_aot") & {*HEAVY, "click"}


@pytest.mark.parametrize("args", [["--help"], ["models"], ["models", "--json"], ["targets"], ["providers"], ["nope"]])
def test_light_commands_load_nothing_heavy(args: list[str]) -> None:
    assert not loaded(f"from gdn_aot.cli.main import run; run({args!r})") & {*HEAVY}


def test_exporting_a_record_loads_nothing_heavy(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    save(full(), record)
    arguments = ["export", "--format", "fla", "--record", str(record), "-o", str(tmp_path / "configs")]
    found = loaded(f"from gdn_aot.cli.main import run; run({arguments!r})")
    assert "gdn_aot" in found
    assert not found & {*HEAVY}


SLOW = ("typing", "dataclasses", "inspect", "logging", "pathlib", "importlib.metadata", "argparse")
"""Modules of the standard library that would take install() past its limit; in a bare interpreter none is there."""


def loaded_without_packages(code: str) -> set[str]:
    """Run code in a fresh interpreter that finds no installed package; return the names of modules that it loaded."""
    program = f"""
import sys
before = set(sys.modules)
sys.path[:] = [place for place in sys.path if "site-packages" not in place] + {[str(ROOT)]!r}
{code}
print("LOADED", *sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, timeout=TIMEOUT
    )
    return set(done.stdout.rpartition("LOADED ")[2].split())


def test_install_loads_next_to_nothing(tmp_path: Path) -> None:
    """Here it finds no artifact and says so, for which logging is imported."""
    home = f"import os; os.environ['GDN_AOT_HOME'] = {str(tmp_path)!r}"
    found = loaded_without_packages(f"{home}; import gdn_aot; gdn_aot.install()")
    assert "gdn_aot.serving.loader" in found
    assert not found & {*HEAVY, *SLOW, "click", "msgspec"} - {"logging"}


def test_a_recorded_process_loads_next_to_nothing_until_it_imports_triton(tmp_path: Path) -> None:
    start = f"from gdn_aot.capture import recorder; recorder.start({str(tmp_path)!r})"
    found = loaded_without_packages(f"{start}; from gdn_aot.plugins import vllm")
    assert "gdn_aot.capture.recorder" in found
    assert not found & {*HEAVY, *SLOW, "click", "msgspec"}
    assert not list(tmp_path.iterdir()), "nothing is written before something is launched"


def imported(path: Path) -> set[str]:
    """Return the top-level names of the modules that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in names}


def test_one_module_knows_the_client_of_the_hub() -> None:
    package = ROOT / "gdn_aot"
    knowing = [path for path in package.rglob("*.py") if "huggingface_hub" in imported(path)]
    assert [str(path.relative_to(package)) for path in knowing] == ["registry/remote.py"]
    for path in (package / "registry").glob("*.py"):
        assert not imported(path) & {"torch", "triton", "fla"}


def test_modules_of_hub_are_cheap() -> None:
    modules = ", ".join(f"gdn_aot.registry.{path.stem}" for path in (ROOT / "gdn_aot/registry").glob("[!_]*.py"))
    found = loaded(f"import {modules}")
    assert "gdn_aot" in found
    assert not found & {"torch", "triton", "fla", "huggingface_hub", "click"}


def test_publish_needs_the_client_of_the_hub_only_for_the_hub(tmp_path: Path) -> None:
    assert not loaded("from gdn_aot.cli.main import run; run(['publish', '--help'])") & {*HEAVY}
    artifact = factory.write(tmp_path)
    arguments = ["publish", str(artifact), "--repo", str(tmp_path / "registry"), "--create"]
    found = loaded(f"from gdn_aot.cli.main import run; assert run({arguments!r}) == 0")
    assert "zstandard" in found
    assert not found & {"torch", "triton", "fla", "huggingface_hub"}


def test_no_module_is_named_up_a_floor() -> None:
    """Modules that are started or imported by name, which the contract on imports does not see."""
    (layers,) = (
        contract["layers"]
        for contract in parse_toml((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    floors = {room.strip(): floor for floor, names in enumerate(layers) for room in names.split("|")}
    named = set()
    for path in (ROOT / "gdn_aot").rglob("*.py"):
        room = path.relative_to(ROOT / "gdn_aot").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = re.fullmatch(r"gdn_aot\.(\w+)(?:\.\w+)*(?::\w+)?", node.value)
                if found and found[1] in floors and room in floors:
                    named.add((room, found[1]))
    assert ("compiling", "compiling") in named
    assert [pair for pair in sorted(named) if floors[pair[0]] > floors[pair[1]]] == []
