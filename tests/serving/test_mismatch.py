"""What differs from the artifact is never served: source, versions, variables, a damaged store."""

import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import storing
from builds import Built
from helpers import gdn_aot, python
from launching import PRELUDE, TOLD
from msgspec.structs import replace

from gdn_aot.artifact import archive
from gdn_aot.launches import Relaxed


@pytest.fixture
def copied_fla(tmp_path: Path) -> Path:
    """A copy of FLA and its metadata that a test may change, to be put first on the path."""
    site = Path(sysconfig.get_paths()["purelib"])
    copy = tmp_path / "site"
    shutil.copytree(site / "fla", copy / "fla", ignore=shutil.ignore_patterns("__pycache__"))
    for metadata in site.glob("fla_core-*.dist-info"):
        shutil.copytree(metadata, copy / metadata.name)
    return copy


KKT = "fla.ops.gated_delta_rule.fused_recurrent:fused_recurrent_gated_delta_rule_fwd_kernel"


def test_a_changed_body_is_never_served(serve: Any, copied_fla: Path) -> None:
    """Same name, same signature, other body: the kernel is compiled, and the reason is said."""
    path = copied_fla / "fla/ops/gated_delta_rule/fused_recurrent.py"
    text = path.read_text()
    assert text.count("tl.sqrt(tl.sum(b_q * b_q) + 1e-6)") == 1
    path.write_text(text.replace("tl.sqrt(tl.sum(b_q * b_q) + 1e-6)", "tl.sqrt(tl.sum(b_q * b_q) + 1e-5)"))
    got = serve("install(); become(); decode(); prefill(); done()", site=copied_fla)
    assert "fused_recurrent.py is not the file" in got["report"]["refused"][KKT]
    assert got["compiled"] == ["fused_recurrent_gated_delta_rule_fwd_kernel"]
    assert got["report"]["modules"] == 6, "the kernels of other files are served"


def test_a_changed_body_is_an_error_in_strict_mode(serve: Any, copied_fla: Path) -> None:
    path = copied_fla / "fla/ops/gated_delta_rule/fused_recurrent.py"
    path.write_text(path.read_text() + "\n# changed\n")
    got = serve("install(strict=True); become(); " + TOLD.format("decode()"), site=copied_fla)
    assert got["error"] == "MissError"
    assert got["compiled"] == []


def test_a_body_replaced_in_memory_is_never_served(serve: Any) -> None:
    """The file is the artifact's, the function is not: it was replaced before the loader came."""
    got = serve("""
become()
import fla.ops.gated_delta_rule.fused_recurrent as module
from gdn_aot.triton_internals import layers
jit, _ = layers(module.fused_recurrent_gated_delta_rule_fwd_kernel)
jit.raw_src = [line.replace("+ 1e-6", "+ 1e-5") for line in jit.raw_src]
install(); decode(); done()
""")
    assert "the body of" in got["report"]["refused"][KKT]
    assert len(got["compiled"]) == 1


def test_the_other_branch_of_one_file_is_never_served(serve: Any) -> None:
    """``FLA_USE_FAST_OPS`` makes another ``exp`` of the same name in the same file."""
    got = serve("install(); become(); decode(); done()", FLA_USE_FAST_OPS="1")
    assert "fla.ops.utils.op.exp" in got["report"]["refused"][KKT]
    assert len(got["compiled"]) == 1


@pytest.mark.parametrize(("distribution", "name"), [("fla_core", "fla-core"), ("triton", "triton")])
def test_another_version_is_refused(serve: Any, tmp_path: Path, distribution: str, name: str) -> None:
    (metadata,) = Path(sysconfig.get_paths()["purelib"]).glob(f"{distribution}-*.dist-info")
    shutil.copytree(metadata, tmp_path / f"other/{distribution}-9.9.9.dist-info")
    got = serve("install(); become(); decode(); done()", site=tmp_path / "other")
    (verdict,) = got["report"]["artifacts"]
    version = metadata.name.removesuffix(".dist-info").partition("-")[2]
    assert verdict["reason"] == f"made for {name} {version}, installed is 9.9.9"
    assert len(got["compiled"]) == 1


@pytest.mark.parametrize("name", ["DISABLE_PTXAS_OPT", "TRITON_INTERPRET", "TRITON_OVERRIDE_ARCH"])
def test_a_variable_that_changes_code_is_respected(serve: Any, name: str) -> None:
    got = serve("install(); become(); report = gdn_aot.report(); done()", **{name: "1"})
    assert name in got["report"]["problem"]
    assert not got["report"]["active"]


@pytest.mark.parametrize("what", ["blob", "record", "header", "truncated", "missing"])
def test_a_damaged_store_is_noticed(serve: Any, tmp_path: Path, what: str) -> None:
    """Whatever is damaged, the answer is right or Triton compiles; nothing is raised."""
    serve("install(); become(); done()")
    store = tmp_path / "home/store"
    (index,) = store.glob("artifacts/*/index")
    if what == "blob":
        for blob in storing.contents(index.parent):
            storing.flip_blob(index.parent, blob, 99)
    elif what == "missing":
        (index.parent / "pack").unlink()
    else:
        data = bytearray(index.read_bytes())
        if what == "truncated":
            del data[len(data) // 2 :]
        for offset in range(100, 200) if what == "header" else range(len(data) // 2, len(data), 97):
            data[offset] ^= 1
        index.write_bytes(data)
    got = serve("gdn_aot.install(); become(); decode(); done()")
    assert got["compiled"] == ["fused_recurrent_gated_delta_rule_fwd_kernel"]
    said = [verdict["reason"] for verdict in got["report"]["artifacts"] if not verdict["accepted"]]
    said += [miss["reason"] for miss in got["report"]["misses"]] + list(got["report"]["refused"].values())
    said += [got["report"]["problem"]]
    assert any(word in " ".join(said) for word in ("damaged", "truncated", "No such file")), got["report"]


# A binary that serves every value of a constexpr is found only where the artifact says so


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
