"""A build packs nothing that takes too much of the card for spilled registers, unless it is told to."""

from pathlib import Path
from typing import Any

import pytest
from builds import Built
from commands import refused
from helpers import gdn_aot
from msgspec.structs import replace

from gdn_aot.artifact import cost
from gdn_aot.artifact.manifest import Manifest
from gdn_aot.building import pack
from gdn_aot.catalogue.targets import get_target

SM_120 = ("--arch", "sm_120", "--model", "qwen3.5-9b", "--workload", "transformers-decode")
KERNEL = "fla.ops.gated_delta_rule.fused_recurrent:fused_recurrent_gated_delta_rule_fwd_kernel"


def _spilling(manifest: Manifest, local: int) -> Manifest:
    """Return a manifest whose binaries take so many bytes of local memory per thread."""
    kernels = (
        replace(
            kernel,
            binaries=tuple(
                replace(binary, resources=replace(binary.resources, local=local)) for binary in kernel.binaries
            ),
        )
        for kernel in manifest.kernels
    )
    return replace(manifest, kernels=tuple(kernels))


@pytest.fixture
def spill(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have builds of this test pack what takes so many bytes per thread."""
    plain = pack.make_manifest

    def spill(local: int) -> None:
        monkeypatch.setattr(pack, "make_manifest", lambda *args, **kwargs: _spilling(plain(*args, **kwargs), local))

    return spill


def test_too_much_is_refused_before_anything_is_written(spill: Any, decode: Built, tmp_path: Path) -> None:
    spill(4096)
    where = tmp_path / "out"
    error = refused("build", *SM_120, "-o", where, home=decode.home, code=6, kind="spills")
    assert error["message"].startswith("sm_120: not packed")
    assert "over 256 MiB" in error["message"]
    (problem,) = error["problems"]
    assert problem["where"] == "sm_120"
    reserve = "1020 MiB on NVIDIA GeForce RTX 5090 (170 SMs x 1536 threads)"
    assert f"4096 bytes of local memory per thread, {reserve}" in problem["what"]
    assert problem["what"].startswith(f"{KERNEL} with num_warps=")
    assert "--allow-spills" in error["hint"]
    assert list(tmp_path.rglob("*.tar.zst")) == []
    said = gdn_aot("build", *SM_120, "-o", where, home=decode.home, code=6).err
    assert "sm_120: not packed, 1 kernel with too much local memory (trace" in said


def test_it_is_packed_where_it_is_asked_for(spill: Any, decode: Built, tmp_path: Path) -> None:
    spill(4096)
    gdn_aot("build", *SM_120, "--allow-spills", "-o", tmp_path, home=decode.home)
    assert list(tmp_path.glob("*.tar.zst"))


def test_what_is_under_the_bound_is_packed(spill: Any, decode: Built, tmp_path: Path) -> None:
    spill(cost.REFUSED // get_target("sm_120").local_reserve(1))
    gdn_aot("build", *SM_120, "-o", tmp_path, home=decode.home)
    assert list(tmp_path.glob("*.tar.zst"))


def test_other_targets_are_packed_all_the_same(spill: Any, decode: Built, tmp_path: Path) -> None:
    """The same bytes per thread come to less on a card with fewer threads."""
    spill(2048)
    both = ("--arch", "sm_120,sm_121", *SM_120[2:])
    error = refused("build", *both, "-o", tmp_path, home=decode.home, code=6, kind="spills")
    assert [problem["where"] for problem in error["problems"]] == ["sm_120"]
    assert [path.name for path in tmp_path.glob("*.tar.zst")] == [decode.path.name.replace("sm_120", "sm_121")]


def test_what_was_really_compiled_is_far_below_the_bound(decode: Built) -> None:
    assert list(cost.over(decode.manifest, 1 << 20)) == []
