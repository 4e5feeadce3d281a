"""What writes digests into tuning records that have none."""

import subprocess
import sys
from pathlib import Path

from helpers import ROOT
from msgspec import UNSET
from msgspec.structs import replace

from gdn_aot.records import tuning as r

TUNING = ROOT / "artifacts/tuning"


def _bind(*paths: Path) -> tuple[int, list[str]]:
    command = [sys.executable, ROOT / "benchmarks/bind.py", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, [line.partition(": ")[2] for line in done.stdout.splitlines()]


def test_digests_are_added_once(tmp_path: Path) -> None:
    """They are those of the target, as a kernel of FLA reads a global that is another one below sm_80.

    What a record has already stays, and so does a record whose release is not installed.
    """
    committed = [TUNING / name for name in ("proxy/sm_75/fla-core-0.6.0.json", "second/sm_90/fla-core-0.6.0.json")]
    turing, hopper = (r.load(path) for path in committed)
    assert turing is not None
    assert hopper is not None
    assert all(kernel.digest for kernel in (*turing.kernels, *hopper.kernels))
    bare, wrong, other = (tmp_path / name for name in ("bare.json", "wrong.json", "other.json"))
    r.save(replace(turing, kernels=tuple(replace(kernel, digest=UNSET) for kernel in turing.kernels)), bare)
    assert bare.read_bytes() != committed[0].read_bytes()
    assert _bind(bare) == (0, [f"{len(turing.kernels)} digests added; 0 not as installed"])
    assert bare.read_bytes() == committed[0].read_bytes()

    first, *rest = hopper.kernels
    r.save(replace(hopper, kernels=(replace(first, digest="0" * 64), *rest)), wrong)
    other.write_bytes((TUNING / "sm_90/vllm-0.24.0.json").read_bytes())
    before = [path.read_bytes() for path in (bare, wrong, other)]
    said = [
        "0 digests added; 0 not as installed",
        f"0 digests added; 1 not as installed {first.kernel}",
        "left, vllm 0.24.0 is not installed here",
    ]
    assert _bind(bare, wrong, other) == (1, said)
    assert [path.read_bytes() for path in (bare, wrong, other)] == before
