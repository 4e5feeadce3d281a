"""The provider with the SGLang that is installed: a build, coverage, relaxations, and where a trace could go wrong.

SGLang has an environment of its own, since it does not go with the versions that the other tests want.
"""

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest
import sglang_running
from helpers import ROOT, WITH_SUPPORT, gdn_aot, python

from gdn_aot.artifact.verify import Artifact, open_artifact
from gdn_aot.catalogue.models import find_model
from gdn_aot.catalogue.providers import PROVIDERS
from gdn_aot.providers import builds
from gdn_aot.providers.sglang.relaxations import LINES, RELAXATIONS

FOUND = importlib.util.find_spec("sglang") is not None
VERSION = importlib.metadata.version("sglang") if FOUND else ""

pytestmark = pytest.mark.skipif(not FOUND, reason="SGLang is not installed here; make sglang runs this where it is")

PREFILL = {
    "_causal_conv1d_fwd_kernel",
    "fused_gdn_gating_kernel",
    "l2norm_fwd_kernel",
    "chunk_local_cumsum_scalar_kernel",
    "chunk_gated_delta_rule_fwd_kkt_solve_kernel",
    "recompute_w_u_fwd_kernel",
    "chunk_gated_delta_rule_fwd_kernel_h_blockdim64",
    "chunk_fwd_kernel_o",
}
TUNED = "chunk_gated_delta_rule_fwd_kkt_solve_kernel"
DECODE = {
    "_causal_conv1d_update_kernel",
    "fused_recurrent_gated_delta_rule_packed_decode_kernel",
    "fused_sigmoid_gating_delta_rule_update_kernel",
}
STATES = {
    "_fused_mamba_state_scatter_with_mask_kernel",
    "_fused_slot_clear_kernel",
    "_fused_slot_copy_kernel",
    "_fused_replay_state_indices_kernel",
}
STATES_OF = {
    "0.5.17": {"_fused_conv_window_scatter_with_mask_kernel", "track_mamba_states_all_layers_kernel"},
    "0.5.23": {
        "_fused_conv_window_scatter_multi_kernel",
        "_verify_commit_outputs_kernel",
        "track_mamba_state_if_needed_kernel",
    },
}
"""Version -> what moves states there, or says which ones, beside `STATES`."""

_START = (
    WITH_SUPPORT
    + """
import json, logging, sys
logging.disable(logging.WARNING)
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target("sm_90"))
from gdn_aot.catalogue.models import all_models, find_model
from gdn_aot.catalogue.providers import Limits
from gdn_aot.providers.draw import EMPTY
from gdn_aot.providers.sglang import workloads as provider
from gdn_aot.providers.sglang import layer as sglang_layer, steps as sglang_steps
from gdn_aot.providers.sglang.steps import Deployment, Group, Step
from launch_keys import keys

PLAIN = Deployment(state="float32", drafts=0)
"""
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def qwen(home: Path) -> Artifact:
    gdn_aot(
        "build", "--provider", "sglang", "--arch", "sm_90", "--model", "qwen3.5-9b", "--tp", 8, "-o", home, home=home
    )
    (path,) = home.glob("*-sm_90.tar.zst")
    return open_artifact(path)


def test_the_version_is_one_of_the_table() -> None:
    assert VERSION in {known.version for known in PROVIDERS["sglang"].versions}


def test_what_is_built_is_known_without_the_engine(tmp_path: Path) -> None:
    """As advice of a serving process says it of the release here, on sm_90: of every model of the catalogue."""
    code = """
print(json.dumps({model.name: provider.lacks(model.shape(1)) for model in all_models()}))
"""
    for name, lacking in python(_START + code, home=tmp_path).items():
        assert builds("sglang", find_model(name), VERSION, (9, 0)) == (not lacking), (name, lacking)


def test_kernels_and_keys_of_a_build(qwen: Artifact) -> None:
    """Everything but ``kkt_solve`` has one configuration: binaries are carried, and a choice for that one."""
    manifest = qwen.manifest
    assert manifest.identifier == f"sglang{VERSION}-triton{manifest.triton.version}-sm_90"
    names = {kernel.qualname for kernel in manifest.kernels}
    assert names >= PREFILL | DECODE
    assert manifest.not_covered == ()
    assert {kernel.qualname for kernel in manifest.kernels if kernel.choices} == {TUNED}
    assert all(kernel.binaries for kernel in manifest.kernels)
    assert names >= STATES | STATES_OF[VERSION]


def test_random_steps_find_everything(qwen: Artifact, home: Path) -> None:
    done = gdn_aot("coverage", qwen.path, "--model", "qwen3.5-9b", "--tp", 8, "--calls", 300, "--json", home=home)
    assert done.json["misses"] == []
    assert done.json["refused"] == []
    assert done.json["hits"] == done.json["launches"] > 1000


def test_the_number_of_cache_lines_is_relaxed_and_no_guard_is(qwen: Artifact) -> None:
    kernels = {kernel.qualname: kernel for kernel in qwen.manifest.kernels}
    declared = {one.kernel.partition(":")[2]: one for one in RELAXATIONS if one.argument == "num_cache_lines"}
    for name, relaxation in declared.items():
        assert kernels[name].source_sha256 in relaxation.sources, "a text that was not read yet"
        assert ("num_cache_lines", LINES) in {(one.argument, one.value) for one in kernels[name].relaxations}
    guarded = {"_fused_qkvzba_causal_conv1d_update_contiguous_kernel"} & set(kernels)
    assert len(guarded) == (VERSION == "0.5.23")
    for kernel in kernels.values():
        guards = [one.value for one in kernel.relaxations if one.argument == "NUM_STATE_SLOTS"]
        assert guards == ([None] if kernel.qualname in guarded else []), "binaries are told, no number stands for it"
        for binary in kernel.binaries if guards else ():
            assert binary.specialization.signature["NUM_STATE_SLOTS"] == "i32"


@pytest.mark.skipif(VERSION != "0.5.23", reason="kernels of the other reference release have no such constant")
def test_kernels_are_built_for_tensors_on_the_card(qwen: Artifact) -> None:
    """The grid of the sigmoid-gating kernel, a constant of it, is another one for tensors on the CPU."""
    name = "fused_sigmoid_gating_delta_rule_update_kernel"
    (kernel,) = (kernel for kernel in qwen.manifest.kernels if kernel.qualname == name)
    found = [binary.specialization for binary in kernel.binaries]
    place = [list(one.signature).index("SPLIT_N_HV_GRID") for one in found]
    values = [dict(one.constants)[(at,)] for one, at in zip(found, place, strict=True)]
    assert values == [True] * len(found) != []


def test_launches_do_not_follow_from_content(tmp_path: Path) -> None:
    """What stands in for copies of content gives every launch the key that it has with them."""
    code = """
result = {"launches": 0, "kernels": [], "other": []}
for name, tp in (("qwen3-next-80b-a3b", 2), ("qwen3.5-9b", 4), ("qwen3.5-27b", 2)):
    shape = find_model(name).shape(tp)
    for kind in ("prefill", "decode", "mixed", "speculative"):
        workload = provider.WORKLOADS[kind]()
        for call in workload.cases(shape, Limits()):
            step = Step.of(call)
            if step.deployment.state != "float32" or step.deployment.drafts not in (0, 3) or step.batch > 40:
                continue
            without = keys(lambda: workload.run(shape, call))
            real = keys(lambda: sglang_layer.apply(shape, step, workload.inputs(shape, call, EMPTY)))
            result["launches"] += len(real)
            if real != without:
                result["other"].append(str(call))
            result["kernels"] = sorted({*result["kernels"], *(kernel for kernel, _ in real)})
print(json.dumps(result))
"""
    got = python(_START + code, home=tmp_path)
    assert got["other"] == []
    assert got["launches"] > 500
    found = {name.partition(":")[2] for name in got["kernels"]}
    assert found >= PREFILL | DECODE
    assert len(found & {"fused_qkvzba_split_reshape_cat_kernel", "layer_norm_gated_fwd_kernel"}) == 2


def test_tensors_say_that_they_are_on_the_card(tmp_path: Path) -> None:
    """Kernels have constants that say so, and functions take other ways, or refuse, where a tensor is on no card."""
    code = """
import torch
from gdn_aot.providers.sglang.platform import on_target
there = torch.zeros(3)
found = {"before": [there.is_cuda, there.device.type]}
with on_target():
    made = torch.arange(4, device="cuda:0", dtype=torch.int32)
    found["within"] = [there.is_cuda, there.device.type, made.device.type, str(there.to("cuda").device)]
    found["kept"] = made.tolist()
found["after"] = [made.is_cuda, made.device.type]
print(json.dumps(found))
"""
    got = python(_START + code, home=tmp_path)
    assert got == {
        "before": [False, "cpu"],
        "within": [True, "cuda", "cuda", "cuda:0"],
        "kept": [0, 1, 2, 3],
        "after": [False, "cpu"],
    }


def test_a_card_needs_nothing_that_a_layer_does_not_call(tmp_path: Path) -> None:
    """There packages that are not installed are stood in for, those that are not, and PyTorch is left as it is."""
    code = """
import importlib.util, json, os, sys, types
from gdn_aot.tracing import stub
from gdn_aot.catalogue.targets import get_target
stub.activate(get_target("sm_90"))
stub.StubDriver.stands_in = False  # as that of a card
import torch
torch.version.cuda = "12.9"  # as PyTorch for it says
there = importlib.machinery.ModuleSpec("torchvision", None)
there.loader = types.SimpleNamespace(create_module=lambda _: None, exec_module=lambda module: None)
finder = types.SimpleNamespace(find_spec=lambda name, *_: there if name == "torchvision" else None)
sys.meta_path.insert(0, finder)
from gdn_aot.providers.sglang.platform import on_target, prepare
prepare()
import sgl_kernel, torchvision
from sgl_kernel import causal_conv1d_fwd
torch.library.register_fake("sgl_kernel::nothing")(lambda: None)
with on_target():
    device = torch.zeros(1).device.type
flashinfer = os.environ["SGLANG_IS_FLASHINFER_AVAILABLE"]
print(json.dumps([torch.version.cuda, device, hasattr(torchvision, "io"), flashinfer]))
"""
    assert python(code, home=tmp_path) == ["12.9", "cpu", False, "false"]


def test_a_prompt_of_one_token_has_keys_of_its_own(tmp_path: Path) -> None:
    """PyTorch gives the convolution's output for one token other strides, which are constants of the kernel."""
    code = """
shape = find_model("qwen3.5-9b").shape(1)
found = {}
for query in (1, 2, 3):
    step = Step(kind="extend", groups=(Group(1, 64, query),), deployment=PLAIN)
    launched = keys(lambda: sglang_layer.apply(shape, step, sglang_layer.inputs(shape, step, EMPTY)))
    found[query] = sorted(map(tuple, launched))
same = [name for name, key in found[2] if (name, key) not in found[1]]
print(json.dumps({"other": sorted({name.partition(":")[2] for name in same}), "two and three": found[2] == found[3]}))
"""
    got = python(_START + code, home=tmp_path)
    assert got["two and three"]
    assert "_causal_conv1d_fwd_kernel" in got["other"]


def test_prompts_take_the_convolution_of_triton(tmp_path: Path) -> None:
    """Though SGLang has a compiled one: the projections of a batch are not contiguous along it."""
    code = """
from gdn_aot.providers.sglang import versions
taken = []
versions.convolution._HAS_SGL_KERNEL = True
versions.convolution.causal_conv1d_fwd = lambda *_: taken.append("compiled")
shape = find_model("qwen3.5-9b").shape(1)
names = []
for query in (1, 16, 70):
    step = Step(kind="extend", groups=(Group(1, 0, query),), deployment=PLAIN)
    names += keys(lambda: sglang_layer.apply(shape, step, sglang_layer.inputs(shape, step, EMPTY)))
print(json.dumps({"taken": taken, "launched": sum("conv1d_fwd" in name for name, _ in names)}))
"""
    assert python(_START + code, home=tmp_path) == {"taken": [], "launched": 3}


def test_the_search_for_information_takes_every_kernel_with_one_configuration(tmp_path: Path) -> None:
    """On a card that launches nothing; SGLang has an autotuner around some of them."""
    code = f"""
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import types
import sglang_options as search
from gdn_aot.measuring import card, gate

class Card:
    device = "cpu"
    load = synchronize = lambda *_: lambda *_: None
    time = lambda self, calls, restore, rounds: [[1e-5] * rounds for _ in calls]

nothing = lambda *_: None
card.Cuda = Card
effects = types.SimpleNamespace(outputs=[1], restore=nothing, poison=nothing, objection=nothing, finish=nothing)
gate.find_effects = lambda *_: effects
search.WARPS, search.STAGES = (2,), (1,)
search.STEPS = {{"prompt": ("extend", 1, 70, 0)}}
sys.argv[1:] = ["-o", {str(tmp_path / "found.json")!r}]
search.main()
rows = json.load(open({str(tmp_path / "found.json")!r}))["rows"]
print(json.dumps({{row["kernel"].partition(":")[2]: len(row["us"]) for row in rows}}))
"""
    found = python(_START + code, home=tmp_path)
    assert set(found) >= PREFILL - {TUNED}
    assert TUNED not in found
    assert set(found.values()) == {2}


@pytest.mark.parametrize("target", ["sm_80", "sm_100", "sm_120"])
def test_layers_run_for_other_targets(target: str, tmp_path: Path) -> None:
    """Programmatic dependent launch is an option of launches from sm_90 on, and of none before."""
    code = """
shape = find_model("qwen3.5-9b").shape(1)
found, launched = set(), []
for name, make in provider.WORKLOADS.items():
    workload = make()
    for call in workload.warm(shape):
        launched += keys(lambda: workload.run(shape, call))
print(json.dumps({
    "kernels": sorted({name.partition(":")[2] for name, _ in launched}),
    "dependent": any("'launch_pdl': True" in key for _, key in launched),
}))
"""
    got = python(_START.replace('"sm_90"', "sys.argv[1]") + code, target, home=tmp_path)
    assert set(got["kernels"]) >= PREFILL | DECODE
    assert got["dependent"] == (target != "sm_80")


_TILES = """
from gdn_aot.triton_internals import interception

def tiles(model, tp, kind, counts, drafts=0):
    shape, found = find_model(model).shape(tp), []
    deployment = Deployment(state="float32", drafts=drafts)
    for count in counts:
        step = Step(kind=kind, groups=(Group(count, 64, 1 + drafts),), deployment=deployment)
        def launched(jit, args, kwargs):
            if "recurrent" in jit.__name__ or "sigmoid" in jit.__name__:
                found.append(kwargs["BV"])
        with interception.intercept(lambda *_: None, launched):
            sglang_layer.apply(shape, step, sglang_layer.inputs(shape, step, EMPTY))
    return found
print(json.dumps({"decode": tiles("qwen3.5-27b", 4, "decode", (1, 3)),
    "verify": tiles("qwen3.5-9b", 1, "verify", (64, 65), drafts=3)}))
"""


@pytest.mark.skipif(VERSION != "0.5.23", reason="its kernels have one tile everywhere before")
@pytest.mark.parametrize(
    ("target", "decode", "verify"), [("sm_80", 32, 32), ("sm_90", 32, 4), ("sm_100", 8, 32), ("sm_120", 32, 32)]
)
def test_tiles_follow_from_the_card_and_the_batch(target: str, decode: int, verify: int, tmp_path: Path) -> None:
    """One token of Qwen3.5-27B at TP 4 has its own on sm_10x, and so have drafts of up to 64 requests on sm_90."""
    got = python(_START.replace('"sm_90"', "sys.argv[1]") + _TILES, target, home=tmp_path)
    assert got == {"decode": [decode, 32], "verify": [verify, 32]}


def test_what_warms_up_is_served(qwen: Artifact, tmp_path: Path) -> None:
    """Its pools have other sizes than those of the build."""
    got = sglang_running.warm(qwen.path, tmp_path, "qwen3.5-9b", 8)
    assert got == {"compiled": [], "benchmarked": 0, "misses": []}


@pytest.mark.parametrize("slots", [21, 4999])
def test_a_process_is_served_whatever_the_size_of_the_pool(qwen: Artifact, tmp_path: Path, slots: int) -> None:
    got = sglang_running.serve(qwen.path, tmp_path, slots, "qwen3.5-9b")
    assert got == {"compiled": [], "benchmarked": 0, "misses": []}


def test_the_layer_gives_what_the_float64_form_says(tmp_path: Path) -> None:
    """In Triton's interpreter: prompts, chunks, tracked copies, decode, padded graphs, and drafts that are refused."""
    got = sglang_running.interpret("gdn", tmp_path)
    kinds = ("prefill", "decode", "speculative")
    assert {(row["layer"], row["kind"]) for row in got} == {
        (layer, kind) for layer in ("qwen3-next", "qwen3.5") for kind in kinds
    }
    sglang_running.check(got)
