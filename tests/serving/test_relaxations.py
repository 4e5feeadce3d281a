"""A process finds a binary that serves every value of a constexpr, and only where the artifact says so."""

from pathlib import Path
from typing import Any

import pytest
from builds import Built
from helpers import gdn_aot, python
from launching import PRELUDE
from msgspec.structs import replace

from gdn_aot.artifact import archive
from gdn_aot.launches import Relaxed

DECODE = "fused_recurrent_gated_delta_rule_fwd_kernel"
_CODE = "install(); become('sm_120'); decode(); decode(v_heads=64); decode(v_heads=64); done()"


@pytest.fixture
def relaxed(decode: Built, tmp_path: Path) -> Path:
    """An artifact that claims that its decode kernel, built for 32 value heads, serves every number of them.

    That is not true, and shows whether the loader looks a key up as it should: nothing is launched here.
    """
    found = Relaxed(argument="HV", value=32, reason="for this test")
    kernels = tuple(
        replace(kernel, relaxations=(found,)) if kernel.qualname == DECODE else kernel
        for kernel in decode.manifest.kernels
    )
    path = tmp_path / decode.path.name
    archive.write_artifact(replace(decode.manifest, kernels=kernels), dict(decode.artifact.iter_blobs()), path)
    return path


def _serve(path: Path, tmp_path: Path) -> Any:
    extra = {"TRITON_CACHE_DIR": str(tmp_path / "triton")}
    return python(PRELUDE + _CODE, path, home=tmp_path / "home", extra=extra)


def test_another_value_is_served_by_the_same_binary(relaxed: Path, tmp_path: Path) -> None:
    got = _serve(relaxed, tmp_path)
    assert got["compiled"] == []
    assert got["report"]["misses"] == []
    assert len(got["loaded"]) == 1, "one module for both"
    assert got["launched"] == [DECODE] * 3


def test_a_triton_cache_cannot_have_it(relaxed: Path, tmp_path: Path) -> None:
    done = gdn_aot("seed", relaxed, "--into", tmp_path / "cache", "--json", home=tmp_path / "home", code=None)
    assert "one binary serves every HV" in done.out + done.err
    assert not list((tmp_path / "cache").glob("**/*.cubin"))


def test_without_a_relaxation_another_value_is_compiled_for(decode: Built, tmp_path: Path) -> None:
    got = _serve(decode.path, tmp_path)
    assert got["compiled"] == [DECODE]
    assert [miss["what"] for miss in got["report"]["misses"]] == ["binary"]
