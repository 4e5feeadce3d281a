"""``make vllm`` and ``make sglang``: what they run, and with which environment."""

import subprocess

import pytest
import yaml
from helpers import ROOT

JOBS = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
VERSIONS = [(engine, one) for engine in ("vllm", "sglang") for one in JOBS[engine]["strategy"]["matrix"][engine]]


def commands(*more: str) -> str:
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "-B", *more], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(("engine", "version"), [("vllm", "0.24.0"), ("sglang", "0.5.17")])
def test_every_test_that_needs_an_engine_is_run(engine: str, version: str) -> None:
    this = str(__file__)
    needing = [
        str(path.relative_to(ROOT))
        for path in ROOT.glob("tests/**/test_*.py")
        if str(path) != this
        and (f"make {engine} runs" in (text := path.read_text()) or f"GDN_AOT_TEST_{engine.upper()}" in text)
    ]
    assert len(needing) >= 1
    shown = commands(engine)
    run = {word for line in shown.splitlines() if " -m pytest " in line for word in line.split()}
    assert [path for path in needing if path not in run] == []
    assert shown.count("GDN_AOT_TEST_") == shown.count(
        f"GDN_AOT_TEST_{engine.upper()}={ROOT}/.venv-{engine}-{version}/bin/python "
    )


@pytest.mark.parametrize(("engine", "version"), VERSIONS)
def test_each_version_of_ci_has_its_environment(engine: str, version: str) -> None:
    shown = commands(engine, f"{engine.upper()}={version}")
    assert f".venv-{engine}-{version}/bin/python -m pytest" in shown
    assert f"-r constraints/{engine}-{version}.txt" in shown
    pins = (ROOT / f"constraints/{engine}-{version}.txt").read_text().splitlines()
    assert f"{engine}=={version}" in pins
    assert {"pytest", "pytest-timeout", "hypothesis", "jsonschema"} <= {line.partition("==")[0] for line in pins}
    assert f".venv-{engine}-*" in commands("clean")
