"""vLLM's entry point with FLA's kernels as the served ones, and a worker module that has only what is looked at."""

import os
from pathlib import Path
from typing import Any

import pytest
import storing
from builds import Built
from doctoring import provider_copy
from helpers import ROOT, python
from launching import PRELUDE

WORKER = """
class Worker:
    def compile_or_warm_up_model(self, extra=0):
        '''vLLM's words.'''
        self.measured = len(self.driver.loaded) if hasattr(self, "driver") else -1
        return 1000 + extra
"""
START = """
import logging, types
lines = []
class Handler(logging.Handler):
    def emit(self, record):
        lines.append([record.levelname, record.name, record.getMessage()])
logging.getLogger("vllm").addHandler(Handler())  # and nothing else: what vLLM's users see
logging.getLogger("vllm").setLevel(logging.INFO)
logging.getLogger("vllm").propagate = False
from gdn_aot.plugins import vllm as plugin

def config(**more):
    names = dict(linear_num_key_heads=16, linear_num_value_heads=32, linear_key_head_dim=128,
        linear_value_head_dim=128, linear_conv_kernel_dim=4)
    return types.SimpleNamespace(**{**names, **more})

def worker(text, tp=1):
    import torch
    torch.cuda.mem_get_info = lambda *_: (1 << 30, 1 << 31)
    torch.cuda.synchronize = lambda *_: None
    from vllm.v1.worker.gpu_worker import Worker
    made = Worker()
    made.driver = driver
    made.model_config = types.SimpleNamespace(hf_text_config=text, dtype=torch.bfloat16)
    made.parallel_config = types.SimpleNamespace(tensor_parallel_size=tp)
    return made

def warnings():
    return [line for line in lines if line[0] != "INFO"]
"""


DELTA = {"num_heads": 16, "head_dim": 128, "short_conv_kernel_size": 4, "kda_layers": [1], "full_attn_layers": [2]}
K3 = {**DELTA, "gate_lower_bound": -5.0}
LING = "no_kda_lora=True, num_attention_heads=16, head_dim=128, short_conv_kernel_size=4"
GLM = "linear_num_heads=16, linear_head_dim=128, linear_conv_kernel_dim=4, linear_lower_bound=-5.0"
ALICE = "linear_num_key_heads=16, linear_num_value_heads=16, kda_allow_negative_eigenvalues=False"
"""What the configurations of models with Kimi Delta Attention say of their layers."""


@pytest.fixture
def play(sm_90: Built, tmp_path: Path) -> Any:
    """Run code with a package ``vllm`` that has a worker, and the artifact for it in ``GDN_AOT_ARTIFACT``."""
    package = tmp_path / "site/vllm/v1/worker"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "gpu_worker.py").write_text(WORKER)
    (package.parent.parent / "logger.py").touch()

    def play(code: str, artifact: str | Path | None = None, **extra: str) -> Any:
        chosen = {"GDN_AOT_ARTIFACT": str(artifact or sm_90.path), "TRITON_CACHE_DIR": str(tmp_path / "triton")}
        path = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(ROOT)])}
        return python(PRELUDE + START + code, home=tmp_path / "home", extra={**chosen, **path, **extra})

    return play


def the_warning(lines: list[list[str]]) -> str:
    """Return the text of the one line."""
    ((level, _, text),) = lines
    assert level == "WARNING"
    return text


def test_it_installs_once_and_says_one_line(play: Any) -> None:
    got = play("""
import vllm.logger
plugin.register(); plugin.register(); become(); prefill(); decode()
done(lines=lines)
""")
    ((level, name, text),) = got["lines"]
    assert (level, name) == ("INFO", "vllm.gdn_aot")
    assert text.startswith("gdn-aot: fla0.6.0-triton3.6.0-sm_90: 8 kernels")
    assert text.endswith("for 1 model; served if the device is sm_90")
    assert got["compiled"] == []
    assert got["benchmarked"] == 0


def test_a_vllm_that_sets_up_its_logging_after_its_plugins_shows_the_line_too(play: Any) -> None:
    got = play("""
import vllm.logger
logger = logging.getLogger("vllm")
(handler,) = logger.handlers
logger.removeHandler(handler)
vllm.logger.configure_logging = theirs = lambda config: logger.addHandler(handler)
plugin.register()
before = list(lines)
vllm.logger.configure_logging("config")
become()
done(before=before, lines=lines, theirs=vllm.logger.configure_logging is theirs)
""")
    assert got["before"] == []
    ((level, name, text),) = got["lines"]
    assert (level, name) == ("INFO", "vllm.gdn_aot")
    assert text.startswith("gdn-aot: fla0.6.0-triton3.6.0-sm_90: 8 kernels")
    assert got["theirs"]


@pytest.fixture
def both(sm_90: Built, decode: Built, tmp_path: Path) -> Path:
    """A directory with artifacts of two cards."""
    folder = tmp_path / "both"
    folder.mkdir()
    for built in (sm_90, decode):
        (folder / built.path.name).symlink_to(built.path)
    return folder


def test_artifacts_of_several_cards_are_one_line_and_the_worker_says_which_serves(play: Any, both: Path) -> None:
    got = play(
        """
plugin.register()
early = [name for name in ("torch", "triton", "vllm", "fla") if name in sys.modules]
become()
import fla.ops.gated_delta_rule, fla.modules
worker(config()).compile_or_warm_up_model()
done(lines=lines, early=early)
""",
        both,
    )
    (_, _, start), (_, _, loaded) = got["lines"]
    assert got["early"] == []
    assert start.startswith("gdn-aot: 2 artifacts: fla0.6.0-triton3.6.0-sm_")
    for header in ("fla0.6.0-triton3.6.0-sm_90: 8 kernels, ", "fla0.6.0-triton3.6.0-sm_120: 1 kernel, "):
        assert header in start
    assert start.endswith("; the device decides which are served")
    assert " kernels from fla0.6.0-triton3.6.0-sm_90, " in loaded


def test_on_a_device_that_is_known_the_line_names_only_what_serves_it(play: Any, both: Path) -> None:
    got = play("become(); gdn_aot.install(); prefill(); plugin.register(); done(lines=lines)", both)
    ((level, _, text),) = got["lines"]
    assert level == "INFO"
    assert text.startswith("gdn-aot: fla0.6.0-triton3.6.0-sm_90: 8 kernels")
    assert text.endswith("for 1 model")


def test_kernels_are_loaded_in_the_last_step_of_a_start_and_none_after(play: Any) -> None:
    got = play("""
plugin.register(); become()
import fla.ops.gated_delta_rule, fla.modules
served = worker(config())
available = served.compile_or_warm_up_model(extra=7)
after = len(driver.loaded)
prefill(); prefill(200, [0, 77, 200], state=True); decode()
done(available=available, measured=served.measured, after=after, now=len(driver.loaded), lines=lines,
    doc=type(served).compile_or_warm_up_model.__doc__)
""")
    assert got["available"] == 1007
    assert got["measured"] == got["after"] == got["now"] > 0
    assert got["doc"] == "vLLM's words."
    assert got["compiled"] == []
    assert [(level, name) for level, name, _ in got["lines"]] == [("INFO", "vllm.gdn_aot")] * 2
    text = got["lines"][1][2]
    assert text.startswith(f"gdn-aot: loaded {got['measured']} modules of ")
    assert text.endswith(" MiB, beside the KV cache")


@pytest.mark.parametrize(
    ("text", "tp", "loaded", "unknown"),
    [
        ("config(linear_num_key_heads=32, linear_num_value_heads=64)", 2, True, ""),
        ("config(linear_num_key_heads=32, linear_num_value_heads=64)", 1, False, "(heads 32, v_heads 64, "),
        ("config(linear_conv_kernel_dim=3)", 1, False, "conv_width 3, dtype bf16)"),
        ("types.SimpleNamespace(hidden_size=64)", 1, False, ""),
        (f"types.SimpleNamespace(linear_attn_config={DELTA})", 2, False, "(heads 8, v_heads 8, k_dim 128, v_dim 128, "),
        (f"types.SimpleNamespace(linear_attn_config={DELTA})", 2, False, "family kda)"),
        (f"types.SimpleNamespace(linear_attn_config={K3})", 2, False, "family kda, gate_bound -5.0)"),
        (f"types.SimpleNamespace({LING})", 2, False, "(heads 8, v_heads 8, k_dim 128, v_dim 128, "),
        (f"types.SimpleNamespace({LING})", 2, False, "family kda, gate_bound -5.0)"),
        (f"types.SimpleNamespace({LING}, kda_lower_bound=-4.0)", 2, False, "family kda, gate_bound -4.0)"),
        (f"types.SimpleNamespace({LING}, kda_safe_gate=False)", 2, False, "family kda)"),
        (f"types.SimpleNamespace({GLM})", 2, False, "(heads 8, v_heads 8, k_dim 128, v_dim 128, conv_width 4, "),
        (f"types.SimpleNamespace({GLM})", 2, False, "family kda, gate_bound -5.0)"),
        (f"config({ALICE})", 2, False, "family kda)"),
    ],
)
def test_the_shape_that_is_served_decides(play: Any, text: str, tp: int, loaded: bool, unknown: str) -> None:
    got = play(f"""
plugin.register(); become()
import fla.ops.gated_delta_rule, fla.modules
served = worker({text}, {tp})
available = served.compile_or_warm_up_model()
done(available=available, measured=served.measured, warnings=warnings())
""")
    assert got["available"] == 1000
    assert bool(got["measured"]) is loaded
    assert len(got["warnings"]) == bool(unknown)
    for level, name, said in got["warnings"]:
        assert (level, name) == ("WARNING", "vllm.gdn_aot")
        assert said.startswith("gdn-aot: no artifact has the served model's shape (")
        assert unknown in said
        assert "gdn-aot build --arch sm_90 --provider fla --model qwen3.5-9b --tp 1" in said
        assert ("--shape heads=32,v_heads=64,k_dim=128,v_dim=128,dtype=bf16" in said) == ("heads 32" in unknown)


@pytest.mark.parametrize("captured", [True, False])
def test_a_capture_may_serve_a_model_that_no_artifact_was_built_for(play: Any, captured: bool) -> None:
    got = play(f"""
plugin.register(); become()
from gdn_aot.serving import preload
preload.load_shape = lambda _: preload.Loaded(
    artifacts=("a", "b"), captured={captured}, models=0, kernels=2, modules=3, bytes=1 << 20)
worker(config()).compile_or_warm_up_model()
done(lines=lines)
""")
    level, _, text = got["lines"][-1]
    assert level == ("INFO" if captured else "WARNING")
    assert "loaded 3 modules of 2 kernels from a, b, 1.0 MiB, beside the KV cache" in text


def test_where_no_artifact_is_for_the_device_the_worker_warns_once(play: Any) -> None:
    got = play("""
plugin.register(); become("sm_89")
import fla.ops.gated_delta_rule, fla.modules
worker(config()).compile_or_warm_up_model()
done(lines=lines)
""")
    assert [line[0] for line in got["lines"]] == ["INFO", "WARNING"]
    assert got["lines"][1][2].startswith("gdn-aot: no artifact is for device 0, which is sm_89")


def test_a_level_that_is_asked_for_applies_below_vllm_too(play: Any) -> None:
    """With ``GDN_AOT_LOG`` messages go to stderr, as everywhere: each of them once, vLLM's handler left aside."""
    code = """
import io
sys.stderr = io.StringIO()
plugin.register()
print(json.dumps([lines, sys.stderr.getvalue().splitlines()]))
"""
    lines, err = play(code, GDN_AOT_LOG="info")
    assert lines == []
    assert err[0] == "INFO gdn-aot: artifact fla0.6.0-triton3.6.0-sm_90: fits"
    assert err[-1].startswith("INFO gdn-aot: fla0.6.0-triton3.6.0-sm_90: 8 kernels")
    lines, err = play(code)
    assert [line[0] for line in lines] == ["INFO"]
    assert err == []


def test_a_failure_while_loading_is_one_warning(play: Any) -> None:
    got = play("""
plugin.register(); become()
served = worker(config())
del served.model_config
print(json.dumps([served.compile_or_warm_up_model(), warnings()]))
""")
    assert got[0] == 1000
    text = the_warning(got[1])
    assert "AttributeError" in text
    assert "the first launches load kernels" in text


@pytest.mark.parametrize(
    "worker",
    ["class Worker:\n    pass\n", "Worker = None\n", "", "class Worker:\n    compile_or_warm_up_model = 3\n"],
)
def test_a_worker_of_another_form_is_left_as_it_is(play: Any, tmp_path: Path, worker: str) -> None:
    (tmp_path / "site/vllm/v1/worker/gpu_worker.py").write_text(worker)
    got = play("""
plugin.register()
from vllm.v1.worker import gpu_worker
found = getattr(gpu_worker, "Worker", None)
method = vars(found).get("compile_or_warm_up_model") if isinstance(found, type) else None
print(json.dumps([callable(method), warnings()]))
""")
    assert got == [False, []]


UNTOUCHED = """
plugin.register(); become()
import vllm.v1.worker.gpu_worker as module
from triton.runtime.jit import JITFunction
from triton.backends.nvidia import driver as nvidia
import fla.ops.gated_delta_rule
from fla.ops.gated_delta_rule.fused_recurrent import fused_recurrent_gated_delta_rule_fwd_kernel as kernel
from gdn_aot.triton_internals import layers
decode()
done(
    warnings=warnings(), method=module.Worker.compile_or_warm_up_model.__module__,
    caches=type(layers(kernel)[0].device_caches).__name__, utils=nvidia.CudaUtils.__module__,
    finders=[type(finder).__module__ for finder in sys.meta_path],
)
"""


@pytest.mark.parametrize("what", ["missing", "garbage", "truncated", "empty folder", "other version", "no store"])
def test_what_does_not_fit_leaves_everything_as_it_was_and_is_one_warning(
    play: Any, sm_90: Built, tmp_path: Path, what: str
) -> None:
    path, more = tmp_path / "artifact.tar.zst", {}
    match what:
        case "garbage":
            path.write_bytes(b"no artifact" * 100)
        case "truncated":
            path.write_bytes(sm_90.path.read_bytes()[:3000])
        case "empty folder":
            path.mkdir()
        case "other version":
            site = tmp_path / "site/fla_core-9.9.9.dist-info"
            site.mkdir()
            path = sm_90.path
        case "no store":
            more = {"GDN_AOT_ARTIFACT": ""}
    got = play(UNTOUCHED, path, **more)
    the_warning(got["warnings"])
    assert got["method"] == "vllm.v1.worker.gpu_worker"
    assert got["caches"] == "defaultdict"
    assert got["utils"] == "triton.backends.nvidia.driver"
    assert not [name for name in got["finders"] if name.startswith("gdn_aot")]
    assert got["compiled"] == ["fused_recurrent_gated_delta_rule_fwd_kernel"]


def test_a_card_of_another_architecture_is_one_warning(play: Any) -> None:
    got = play("plugin.register(); become('sm_89'); prefill(); decode(); done(warnings=warnings())")
    assert len(got["compiled"]) == 7
    text = "gdn-aot: no artifact is for device 0, which is sm_89; Triton compiles as usual"
    cover = "Cover it with: gdn-aot fetch --arch sm_89, or gdn-aot build --arch sm_89"
    assert the_warning(got["warnings"]) == f"{text}. {cover}"


def test_damaged_binaries_are_one_warning(play: Any, tmp_path: Path) -> None:
    play("plugin.register(); become(); done()")
    place = storing.place_of(tmp_path / "home")
    for sha256 in storing.cubins(place):
        storing.flip_blob(place, sha256, at=99)
    got = play("plugin.register(); become(); prefill(); decode(); done(warnings=warnings())")
    assert len(got["compiled"]) == 7
    assert len(got["report"]["misses"]) == 7
    text = the_warning(got["warnings"])
    assert "is damaged" in text
    assert "Install it again" in text


def test_other_sources_are_one_warning(play: Any, tmp_path: Path) -> None:
    provider_copy(tmp_path / "site")
    for path in (tmp_path / "site/fla/ops").rglob("*.py"):
        path.write_text(path.read_text() + "\n# patched\n")
    got = play("plugin.register(); become(); prefill(); decode(); done(warnings=warnings())")
    assert len(got["report"]["refused"]) > 1
    the_warning(got["warnings"])


def test_an_error_of_ours_does_not_reach_vllm(play: Any) -> None:
    got = play("""
class Odd(BaseException):
    pass
def broken(*_, **__):
    raise Odd("broken")
from gdn_aot.serving import loader
loader.install = broken
plugin.register()
print(json.dumps(warnings()))
""")
    assert the_warning(got) == "gdn-aot: nothing is served: Odd: broken"


def test_ctrl_c_is_not_swallowed_and_strict_mode_is_strict(play: Any, tmp_path: Path) -> None:
    code = """
from gdn_aot.serving import loader
def interrupted(*_, **__):
    raise KeyboardInterrupt
kept, loader.install = loader.install, interrupted
raised = []
for _ in range(2):
    try:
        plugin.register()
    except BaseException as error:
        raised.append(type(error).__name__)
    plugin._registered, loader.install = False, kept
print(json.dumps(raised))
"""
    assert play(code, tmp_path / "none", GDN_AOT_STRICT="1") == ["KeyboardInterrupt", "NoArtifactError"]


def test_switched_off_it_does_nothing(play: Any) -> None:
    got = play("plugin.register(); become(); decode(); done(lines=lines)", GDN_AOT="0")
    assert got["lines"] == []
    assert not got["report"]["active"]
