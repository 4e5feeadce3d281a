"""What can go wrong around the loader: half-imported modules, changes after import, strictness, stand-in choices."""

import os
from pathlib import Path
from typing import Any

import pytest
from launching import TOLD

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
