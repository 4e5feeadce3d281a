"""The provider with every version of FLA that the table says is tested, each installed as its wheel."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, TIMEOUT, gdn_aot, python

from gdn_aot.artifact.verify import open_artifact
from gdn_aot.catalogue.models import find_model
from gdn_aot.catalogue.providers import PROVIDERS

VERSIONS = [known.version for known in PROVIDERS["fla"].versions if known.status == "tested"]

_ALWAYS = {
    "chunk_local_cumsum_scalar_kernel",
    "recompute_w_u_fwd_kernel",
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
    "chunk_fwd_kernel_o",
    "fused_recurrent_gated_delta_rule_fwd_kernel",
    "layer_norm_gated_fwd_kernel",
    "causal_conv1d_fwd_kernel",
    "l2norm_fwd_kernel",
}
_SOLVE_IN_TWO = {"chunk_scaled_dot_kkt_fwd_kernel", "merge_16x16_to_64x64_inverse_kernel"}
_SOLVE_FUSED = {"chunk_gated_delta_rule_fwd_kkt_solve_kernel"}
EXPECTED = {
    "0.4.2": _ALWAYS | _SOLVE_IN_TWO,
    "0.5.0": _ALWAYS | _SOLVE_FUSED | {"gdn_gate_chunk_cumsum_scalar_kernel"},
    "0.5.1": _ALWAYS | _SOLVE_FUSED | {"gdn_gate_chunk_cumsum_scalar_kernel"},
    "0.5.2": _ALWAYS | _SOLVE_FUSED | {"gdn_gate_chunk_cumsum_scalar_kernel"},
    "0.6.0": _ALWAYS | _SOLVE_FUSED | {"gdn_gate_chunk_cumsum_scalar_kernel", "fused_beta_sigmoid_fwd_kernel"},
}
"""Kernels that the inference workloads launch for qwen3.5-9b."""

_TRACE = """
import json, sys
from gdn_aot.compiling.client import Worker
from gdn_aot.tracing.records import Trace
from gdn_aot.tracing.wanted import Wanted
from gdn_aot.catalogue.models import ModelShape
from gdn_aot.catalogue.providers import Limits, PROVIDERS; from gdn_aot.machine import installed
from gdn_aot.catalogue.targets import get_target
shapes = [ModelShape(**shape) for shape in json.loads(sys.argv[1])]
limits, fla = Limits(max_tokens=8192, max_batch=4), PROVIDERS["fla"]
wanted = Wanted(provider=fla, shapes=tuple(shapes), fp16_fallback=False, limits=limits, workloads=fla.inference)
with Worker("fla", get_target("sm_90")) as worker:
    trace = Trace.from_json(worker.trace(wanted, "12"))
print(json.dumps({
    "version": trace.provider_version, "installed": installed.require("fla"), "refused": trace.refused,
    "kernels": sorted({trace.kernels[launch.kernel].qualname for launch in trace.launches}),
    "workloads": trace.workloads, "calls": trace.calls,
    "sources": sorted({source.path for kernel in trace.kernels for source in kernel.sources}),
}))
"""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """Install a version of fla-core in a directory of its own; return the environment that puts it first."""
    root = tmp_path_factory.mktemp("fla")

    def install(version: str) -> dict[str, str]:
        place = root / version
        if not place.is_dir():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            done = subprocess.run(
                [*command, "--target", str(place), f"fla-core=={version}"],
                capture_output=True, text=True, check=False, timeout=TIMEOUT,
            )  # fmt: skip
            if done.returncode and "Could not find a version" in done.stderr and "from versions: none" in done.stderr:
                pytest.skip(f"no package index can be reached: {done.stderr.strip().splitlines()[-1]}")
            assert done.returncode == 0, done.stderr
        return {"PYTHONPATH": str(place)}

    return install


def _environment(extra: dict[str, str]) -> dict[str, str]:
    return {**extra, "PYTHONPATH": f"{extra.get('PYTHONPATH', '')}:{ROOT}".strip(":")}


def _traced(home: Path, extra: dict[str, str]) -> Any:
    shapes = [asdict(find_model(name).shape(1)) for name in ("qwen3.5-9b", "olmo-hybrid-7b")]
    return python(_TRACE, json.dumps(shapes), home=home, extra=_environment(extra))


def test_every_tested_version_is_expected_here() -> None:
    assert {known.version for known in PROVIDERS["fla"].versions} == set(EXPECTED)
    assert [known.version for known in PROVIDERS["fla"].versions if known.status == "reference"] == ["0.6.0"]


def test_the_reference_version(tmp_path: Path) -> None:
    made = _traced(tmp_path, {})
    assert made["version"] == "0.6.0"
    assert made["refused"] == []
    assert set(made["kernels"]) >= EXPECTED["0.6.0"]
    assert made["workloads"] == list(PROVIDERS["fla"].inference)


@pytest.mark.parametrize("version", VERSIONS)
def test_another_version_is_traced(installed: Callable[[str], dict[str, str]], tmp_path: Path, version: str) -> None:
    made = _traced(tmp_path, installed(version))
    assert made["version"] == made["installed"] == version
    assert made["refused"] == []
    assert set(made["kernels"]) >= EXPECTED[version]
    assert {"transformers-prefill", "transformers-decode", "gated-norm", "short-conv"} <= set(made["workloads"])
    assert all(path.startswith("fla/") for path in made["sources"])


@pytest.mark.parametrize("version", VERSIONS)
def test_another_version_is_built_and_covered(
    installed: Callable[[str], dict[str, str]], tmp_path: Path, version: str
) -> None:
    extra = _environment(installed(version))
    workload = ("--workload", "transformers-decode")
    (row,) = gdn_aot(
        "build", "--arch", "sm_90", "--model", "qwen3.5-9b", *workload, "-o", tmp_path / "out", "--json",
        home=tmp_path, extra=extra,
    ).json["artifacts"]  # fmt: skip
    manifest = open_artifact(row["path"]).manifest
    assert manifest.identifier.startswith(f"fla{version}-triton")
    assert row["not_covered"] == []
    assert row["binaries"] > 0
    covered = gdn_aot(
        "coverage", row["path"], *workload, "--calls", 100, "--json", home=tmp_path, extra=extra
    ).json  # fmt: skip
    assert covered["misses"] == covered["refused"] == []
    assert covered["hits"] == covered["launches"] >= 100
