"""``make vllm``: what it runs, and with which environment."""

import subprocess

import pytest
import yaml
from helpers import ROOT

VERSIONS = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["vllm"]["strategy"]["matrix"]["vllm"]


def commands(*more: str) -> str:
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "-B", *more], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_every_test_that_needs_vllm_is_run() -> None:
    this = str(__file__)
    needing = [
        str(path.relative_to(ROOT))
        for path in ROOT.glob("tests/**/test_*.py")
        if str(path) != this and ("make vllm runs" in (text := path.read_text()) or "GDN_AOT_TEST_VLLM" in text)
    ]
    assert len(needing) >= 2
    shown = commands("vllm")
    run = {word for line in shown.splitlines() if " -m pytest " in line for word in line.split()}
    assert [path for path in needing if path not in run] == []
    assert f"GDN_AOT_TEST_VLLM={ROOT}/.venv-vllm-0.24.0/bin/python " in shown


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_of_ci_has_its_environment(version: str) -> None:
    shown = commands("vllm", f"VLLM={version}")
    assert f".venv-vllm-{version}/bin/python -m pytest" in shown
    assert f"-r constraints/vllm-{version}.txt" in shown
    pins = (ROOT / f"constraints/vllm-{version}.txt").read_text().splitlines()
    assert f"vllm=={version}" in pins
    assert {"pytest", "pytest-timeout", "hypothesis", "jsonschema"} <= {line.partition("==")[0] for line in pins}
    assert ".venv-vllm-*" in commands("clean")
