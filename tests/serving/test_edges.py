"""What can go wrong around the loader: half-imported modules, changes after import, strictness, stand-in choices."""

import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import storing
from builds import Built
from doctoring import provider_copy
from helpers import gdn_aot, python
from launching import PRELUDE, TOLD
from msgspec.structs import replace

from gdn_aot.artifact import archive
from gdn_aot.launches import Relaxed

DECODE = "fused_recurrent_gated_delta_rule_fwd_kernel"


def test_a_global_changed_before_the_first_launch_is_compiled_for(serve: Any) -> None:
    """Plain Triton compiles for the value of the first launch; so must a kernel that was seeded at import."""
    got = serve("""
install(); become()
import triton.language as tl
import fla.ops.gated_delta_rule.chunk_fwd as module
module.SOLVE_TRIL_DOT_PRECISION = tl.constexpr("ieee")
prefill(); done()
""")
    assert got["compiled"] == ["chunk_gated_delta_rule_fwd_kkt_solve_kernel"]
    (miss,) = got["report"]["misses"]
    assert "SOLVE_TRIL_DOT_PRECISION was changed" in miss["reason"]
    assert len(got["loaded"]) == 6


def test_a_source_replaced_after_import_is_compiled(serve: Any) -> None:
    got = serve("""
install(); become()
import fla.ops.gated_delta_rule.fused_recurrent as module
from gdn_aot.triton_internals import layers
jit, _ = layers(module.fused_recurrent_gated_delta_rule_fwd_kernel)
jit._unsafe_update_src(jit.src.replace("+ 1e-6", "+ 1e-5"))
decode(); done()
""")
    assert got["compiled"] == [DECODE]
    assert got["report"]["modules"] == 0
    assert "source was replaced" in got["report"]["misses"][0]["reason"]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("import os; os.environ['DISABLE_PTXAS_OPT'] = '1'", "DISABLE_PTXAS_OPT"),
        ("import triton; triton.knobs.language.fp32_default = 'ieee'", "TRITON_F32_DEFAULT"),
        ("import triton; triton.knobs.language.default_fp_fusion = False", "TRITON_DEFAULT_FP_FUSION"),
    ],
)
def test_other_code_asked_for_after_install(serve: Any, change: str, name: str) -> None:
    got = serve(f"install(); become(); {change}; decode(); done()")
    assert got["compiled"] == [DECODE]
    assert name in got["report"]["misses"][0]["reason"]


def test_an_artifact_that_comes_later_is_found(serve: Any) -> None:
    """A first install() found an empty store; the next one finds what was put there since."""
    got = serve("""
gdn_aot.install(); become()
from gdn_aot.store.install import install as put
from gdn_aot.store.store import Store, default_home
from gdn_aot.artifact.verify import open_artifact
put(Store(default_home()), open_artifact(sys.argv[1]))
gdn_aot.install(); decode(); done()
""")
    assert got["compiled"] == []
    assert got["report"]["active"]


@pytest.mark.parametrize(
    ("before", "what", "error"),
    [
        ("become(); ", "gdn_aot.install(strict=True)", "NoArtifactError"),
        ("become(); gdn_aot.install(); ", "gdn_aot.install(strict=True)", "NoArtifactError"),
        ("install(strict=True); become('sm_120'); ", "decode()", "MissError"),
    ],
    ids=["no artifact", "none found before", "another architecture"],
)
def test_strict(serve: Any, before: str, what: str, error: str) -> None:
    got = serve(before + TOLD.format(what))
    assert (got["error"], got["compiled"]) == (error, [])


def test_strict_with_damaged_choices(serve: Any, tmp_path: Path) -> None:
    serve("install(); become(); done()")
    (index,) = (tmp_path / "home/store/artifacts").glob("*/index")
    data = index.read_bytes()
    index.write_bytes(data.replace(b'"default"', b'"DEFAULT"'))
    got = serve("gdn_aot.install(strict=True); become(); " + TOLD.format("prefill()"))
    assert got["error"] == "MissError"
    assert (got["compiled"], got["benchmarked"]) == ([], 0)


def test_strict_is_not_switched_off_by_another_install(serve: Any) -> None:
    got = serve("install(strict=True); import gdn_aot.auto; become(); done()")
    assert got["report"]["strict"]


def test_a_reloaded_module_is_seeded_again(serve: Any) -> None:
    got = serve("""
install(strict=True); become()
import importlib
import fla.ops.gated_delta_rule
module = sys.modules["fla.ops.gated_delta_rule.fused_recurrent"]
decode()
importlib.reload(module)
import torch
with torch.inference_mode():
    module.fused_recurrent_gated_delta_rule(
        **inputs(1, 2), initial_state=torch.empty(2, 32, 128, 128), output_final_state=True,
        use_qk_l2norm_in_kernel=True)
done()
""")
    assert got["compiled"] == []
    assert got["launched"] == [DECODE] * 2


def test_installed_while_the_provider_is_imported(serve: Any, tmp_path: Path) -> None:
    """A kernel module that is half imported when install() runs is seeded when it is whole."""
    (tmp_path / "site").mkdir()
    got = serve("""
become()
import importlib.abc, threading
class Early(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "fla.ops.utils.solve_tril" and not gdn_aot.report().artifacts:
            install(strict=True)
        return None
sys.meta_path.insert(0, Early())
import fla.ops.gated_delta_rule
prefill(); decode(); done()
""")
    assert got["compiled"] == []
    assert got["benchmarked"] == 0
    assert got["report"]["refused"] == {}


def test_a_stand_in_that_does_not_fit_gives_way(serve: Any) -> None:
    """Triton's autotuner drops a configuration that needs more than the device has; so does a stand-in's trial."""
    got = serve("""
install(); become()
from triton.runtime.errors import OutOfResources
load, refused = driver.utils.load_binary, []
def picky(name, code, shared, device):
    if name.startswith("chunk_gated_delta_rule_fwd_kernel_h") and len(refused) < 2:
        refused.append(name)
        raise OutOfResources(shared, 1, "shared memory")
    return load(name, code, shared, device)
driver.utils.load_binary = picky
prefill(heads=3, v_heads=6); prefill(heads=3, v_heads=6)
from gdn_aot.triton_internals.serving import Trial
tuners = [kernel.tuner for kernel in gdn_aot.serving.loader.state().kernels.values() if kernel.tuner]
done(refused=len(refused), trials=sum(isinstance(tuner.fn, Trial) for tuner in tuners))
""")
    assert got["refused"] == 2
    assert got["trials"] == 0
    assert got["benchmarked"] == 0
    assert got["launched"].count("chunk_gated_delta_rule_fwd_kernel_h_blockdim64") == 2


def test_a_store_that_cannot_be_written(serve: Any, tmp_path: Path) -> None:
    """The artifact is unpacked in memory, which a forked child shares."""
    (tmp_path / "file").write_text("")
    got = serve(
        """
install(strict=True); become(); decode()
child = os.fork()
if child == 0:
    decode(); prefill()
    os._exit(0 if counter.compiled == [] and counter.benchmarked == 0 else 1)
done(child=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""".replace("install", "import os; install", 1),
        GDN_AOT_HOME=os.fspath(tmp_path / "file"),
    )
    assert got["compiled"] == []
    assert got["child"] == 0


def test_configuration_files_of_fla_are_not_overruled_by_a_neighbour(serve: Any) -> None:
    got = serve("install(); become(); prefill(heads=3, v_heads=6); done()", FLA_CACHE_MODE="strict")
    assert got["report"]["on_miss"] == "tune"
    assert got["benchmarked"] > 0


# What differs from the artifact is never served: source, versions, variables, a damaged store


KKT = "fla.ops.gated_delta_rule.fused_recurrent:fused_recurrent_gated_delta_rule_fwd_kernel"


def test_a_changed_body_is_never_served(serve: Any, tmp_path: Path) -> None:
    """Same name, same signature, other body: the kernel is compiled, and the reason is said."""
    path = provider_copy(tmp_path / "site")
    text = path.read_text()
    assert text.count("tl.sqrt(tl.sum(b_q * b_q) + 1e-6)") == 1
    path.write_text(text.replace("tl.sqrt(tl.sum(b_q * b_q) + 1e-6)", "tl.sqrt(tl.sum(b_q * b_q) + 1e-5)"))
    got = serve("install(); become(); decode(); prefill(); done()", site=tmp_path / "site")
    assert "fused_recurrent.py is not the file" in got["report"]["refused"][KKT]
    assert got["compiled"] == ["fused_recurrent_gated_delta_rule_fwd_kernel"]
    assert got["report"]["modules"] == 6, "the kernels of other files are served"


def test_a_changed_body_is_an_error_in_strict_mode(serve: Any, tmp_path: Path) -> None:
    path = provider_copy(tmp_path / "site")
    path.write_text(path.read_text() + "\n# changed\n")
    got = serve("install(strict=True); become(); " + TOLD.format("decode()"), site=tmp_path / "site")
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
    why = ", and no kernel has the same source" * (name != "triton")
    assert verdict["reason"] == f"made for {name} {version}, installed is 9.9.9{why}"
    assert len(got["compiled"]) == 1


def test_another_version_of_the_same_source_is_served(serve: Any, tmp_path: Path) -> None:
    """As a local version, or a release that left the kernels alone; but for a kernel whose file it changed."""
    packages, site = Path(sysconfig.get_paths()["purelib"]), tmp_path / "other"
    (metadata,) = packages.glob("fla_core-*.dist-info")
    shutil.copytree(metadata, site / f"{metadata.name.removesuffix('.dist-info')}+cu129.dist-info")
    shutil.copytree(packages / "fla", site / "fla", ignore=shutil.ignore_patterns("__pycache__"))
    got = serve("install(); become(); decode(); done()", site=site)
    (verdict,) = got["report"]["artifacts"]
    assert (verdict["accepted"], got["compiled"], got["report"]["refused"]) == (True, [], {})
    count = len(got["report"]["seeded"])
    assert f"+cu129; {count} of its {count} kernels have the source that is installed" in verdict["reason"]
    with (site / "fla/ops/gated_delta_rule/fused_recurrent.py").open("a") as file:
        file.write("\n")
    got = serve("install(); become(); decode(); done()", site=site)
    (verdict,) = got["report"]["artifacts"]
    assert f"{count - 1} of its {count} kernels" in verdict["reason"]
    (refused,) = got["report"]["refused"].values()
    assert refused == "fla/ops/gated_delta_rule/fused_recurrent.py is not the file that the artifact was built from"
    assert len(got["compiled"]) == 1
    got = serve("become(); " + TOLD.format("install(strict=True)"), site=site)
    assert got["error"] == "NoArtifactError", "not all of it is served"


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
