"""``gdn-aot check`` on the device: its own code, and that of an older architecture as PTX."""

import json
from pathlib import Path
from typing import Any

import pytest
from gpu.conftest import Record
from helpers import expect_error, gdn_aot

from gdn_aot.records import numerics as record

pytestmark = pytest.mark.gpu

SHAPE = ("--shape", "heads=16,v_heads=32,k_dim=128,v_dim=128", "--max-tokens", 1200, "--max-batch", 3)
"""Of 2 heads the output of a single token is often so small that a limit relative to it means nothing."""


def checked(tmp_path: Path, home: Path, arch: str, dtype: str) -> record.Record:
    shape = (SHAPE[0], f"{SHAPE[1]},dtype={dtype}", *SHAPE[2:])
    done = gdn_aot("check", "--arch", arch, *shape, "-o", tmp_path, "--json", home=home, code=None)
    found = record.load(next(tmp_path.glob(f"{arch}/*.json")))
    assert found is not None
    problems = [str(item) for row in found.checks for item in (*row.failed, *row.skipped)]
    assert problems == []
    assert done.code == 0, done.err
    return found


def test_own_and_older_code(
    machine: dict[str, Any], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, record: Record
) -> None:
    own = "sm_{}{}".format(*machine["capability"])
    home, measured = tmp_path_factory.mktemp("home"), {}
    older = (("sm_80", "ptx", "bf16"), ("sm_75", "ptx", "fp16"))
    for arch, how, dtype in ((own, "cubin", "bf16"), *(row for row in older if row[0] != own)):
        found = checked(tmp_path, home, arch, dtype)
        assert (found.status, found.how) == ("checked", how)
        assert found.device is not None
        assert found.device.driver == machine["driver"]
        assert sum(row.calls for row in found.checks) > 100
        assert all(kernel.ok for kernel in found.kernels)
        worst = {item.result: item.error for row in found.checks for item in row.worst}
        measured[arch] = {"calls": sum(row.calls for row in found.checks), "worst": worst}
        record(**measured)


def test_newer_code_is_not_run(machine: dict[str, Any], tmp_path: Path) -> None:
    if tuple(machine["capability"]) >= (12, 1):
        pytest.skip("there is no newer target")
    done = gdn_aot("check", "--arch=sm_121", "--model=qwen3.5-9b", "-o", tmp_path, "--json", home=tmp_path, code=None)
    expect_error(done, 3, "nothing-selected")
    (path,) = tmp_path.glob("sm_121/*.json")
    assert json.loads(path.read_text())["status"] == "not run"
